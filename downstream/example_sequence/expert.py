"""A text of an utterance, learned from a CSV of path, text and split (the template for tasks on sequences)."""

from pydantic import Field
from torch import nn

from mynah.downstream import sequence, speech
from mynah.utility.configuration.sections import Section
from mynah.utility.demo.phones import demo_phones


class ModelConfig(Section):
    """The head's shape."""

    hidden_size: int = Field(128, gt=0)
    """Width between the features and the output."""


class Config(sequence.SequenceConfig):
    """The schema of config.yaml: what every task on sequences has, and this task's own sections."""

    model: ModelConfig = Field(default_factory=ModelConfig)


class DownstreamExpert(sequence.SequenceExpert):
    """Linear, ReLU, linear at each position; characters by CTC. What may be set or overridden, and what each method
    must do, is said in downstream/sequence.py, downstream/speech.py and downstream/interfaces.py."""

    Config = Config
    monitor, rates = "cer", ("cer", "wer")
    name, names = "character", "characters"

    @classmethod
    def use_demo_data(cls, config: Config) -> None:
        config.datarc.file_path = str(demo_phones() / "utterances.csv")

    def read_corpus(self) -> speech.Corpus:
        """{split: [(utterance, its text), ...]}; the data is read on first use, so that inference needs none."""
        return self.read_table("text")

    def build_head(self, feature_size: int, num_outputs: int) -> nn.Module:
        size = self.config.model.hidden_size
        return nn.Sequential(nn.Linear(feature_size, size), nn.ReLU(), nn.Linear(size, num_outputs))
