"""Speaker identification: who of the known speakers it is (VoxCeleb1, or any folder of speaker folders)."""

from functools import cached_property

from pydantic import Field

from mynah.downstream import classification
from mynah.utility.demo.speech import demo_voxceleb1

from .dataset import SpeakerCorpus, SpeakerDataConfig, read_corpus


class SpeakerConfig(classification.ClassificationConfig):
    """The schema of config.yaml."""

    datarc: SpeakerDataConfig = Field(default_factory=SpeakerDataConfig)


class DownstreamExpert(classification.ClassificationExpert):
    """A classifier of speakers, known from the corpus or, when rebuilt from a checkpoint, from its state."""

    Config = SpeakerConfig
    name, names = "speaker", "speakers"
    split_hint = " (without a list, a speaker needs three utterances to have one in each split)"

    @classmethod
    def use_demo_data(cls, config: SpeakerConfig) -> None:
        config.datarc.file_path = str(demo_voxceleb1())
        config.datarc.split_list = ""

    def read_corpus(self) -> dict[str, list[classification.Labelled]]:
        return self._speakers.utterances

    def label_names(self, corpus: dict[str, list[classification.Labelled]]) -> list[str]:
        """Those of the whole corpus: the split list's, of which some may have nothing to train on."""
        return self._speakers.speakers

    @cached_property
    def _speakers(self) -> SpeakerCorpus:
        return read_corpus(self.config.datarc, self.skipped_files)
