"""Voice activity: is anything said, frame by frame, from a CSV of alignments (the template for tasks by frame)."""

from pathlib import Path

from pydantic import Field

from mynah.downstream import framewise, interfaces, speech
from mynah.utility.audio.alignment_files import read_alignment
from mynah.utility.demo.phones import demo_activity


class DataConfig(speech.SpeechDataConfig):
    """Where the data is; how it is read stands in downstream/speech.py."""

    file_path: str = ""
    """A CSV with the columns path, alignment (a file of lines `start end label`), split (train, dev or test)."""


class Config(interfaces.DownstreamConfig):
    """The schema of config.yaml: what every task has, and this task's own sections."""

    datarc: DataConfig = Field(default_factory=DataConfig)


class DownstreamExpert(framewise.FrameExpert):
    """A linear layer. Head, loss, metrics, predictions and pictures stand in downstream/framewise.py."""

    Config = Config
    outside = "silence"

    @classmethod
    def use_demo_data(cls, config: Config) -> None:
        config.datarc.file_path = str(demo_activity())

    def read_corpus(self) -> speech.Corpus:
        """{split: [(utterance, its segments), ...]}; the data is read on first use, so that inference needs none."""
        folder = Path(self.config.datarc.file_path).expanduser().absolute().parent
        table = self.read_table("alignment").items()
        return {split: [(one, read_alignment(folder / file)) for one, file in items] for split, items in table}
