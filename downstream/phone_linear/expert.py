"""Phones by frame: which phone is said in each position, by one linear layer (the Audio ALBERT paper's task)."""

from pydantic import Field

from mynah.downstream.framewise import FrameExpert
from mynah.downstream.interfaces import DownstreamConfig
from mynah.downstream.speech import Corpus
from mynah.utility.demo.phones import demo_phones

from .dataset import PhoneDataConfig, read_phones


class PhoneConfig(DownstreamConfig):
    """The schema of config.yaml."""

    datarc: PhoneDataConfig = Field(default_factory=PhoneDataConfig)


class DownstreamExpert(FrameExpert):
    """A linear probe of phones (Chi et al. 2021, sec. 4.2)."""

    Config = PhoneConfig
    name, names = "phone", "phones"
    split_hint = "; see datarc.train_list, datarc.test_list and datarc.speaker"

    @classmethod
    def use_demo_data(cls, config: PhoneConfig) -> None:
        config.datarc.file_path = str(demo_phones() / "utterances.csv")
        config.datarc.alignments = config.datarc.train_list = config.datarc.test_list = config.datarc.speaker = ""

    def read_corpus(self) -> Corpus:
        return read_phones(self.config.datarc, self.skipped_files)

    def label_names(self, corpus: Corpus) -> list[str]:
        """Those of all splits: a rare phone that training lacks is an error of the probe, not of the data."""
        return sorted({segment.label for items in corpus.values() for _, segments in items for segment in segments})
