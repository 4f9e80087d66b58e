"""Keyword spotting: which of ten words was said, another one, or none (Speech Commands)."""

from pydantic import Field

from mynah.downstream import classification
from mynah.utility.demo.speech import demo_speech_commands

from .dataset import CommandsDataConfig, class_names, read_commands


class CommandsConfig(classification.ClassificationConfig):
    """The schema of config.yaml."""

    datarc: CommandsDataConfig = Field(default_factory=CommandsDataConfig)


class DownstreamExpert(classification.ClassificationExpert):
    """A classifier of words."""

    Config = CommandsConfig
    name, names = "word", "words"
    crops_everything = True

    @classmethod
    def use_demo_data(cls, config: CommandsConfig) -> None:
        config.datarc.file_path = str(demo_speech_commands())
        config.datarc.test_path = ""

    def read_corpus(self) -> dict[str, list[classification.Labelled]]:
        return read_commands(self.config.datarc, self.skipped_files)

    def label_names(self, corpus: dict[str, list[classification.Labelled]]) -> list[str]:
        return class_names((label for _, label in corpus["train"]), self.config.datarc.words)
