"""The configuration of masked acoustic pretraining: the schema of aalbert's and mockingjay's YAML."""

from typing import ClassVar

from pydantic import Field

from mynah.utility.acoustic.masking import MaskingConfig
from mynah.utility.acoustic.model import AcousticEncoderConfig, AcousticFeaturesConfig
from mynah.utility.audio.corpus import CorpusConfig
from mynah.utility.configuration.sections import Section
from mynah.utility.training.config import (
    CheckpointConfig,
    LoaderConfig,
    OptimizerConfig,
    SchedulerConfig,
    SharedConfig,
)


class AcousticConfig(Section):
    """What a checkpoint must say for its model to be built again."""

    model: AcousticEncoderConfig = Field(default_factory=AcousticEncoderConfig)
    features: AcousticFeaturesConfig = Field(default_factory=AcousticFeaturesConfig)


class LoggingConfig(Section):
    """What a run draws."""

    pictures_every_n_steps: int = Field(5000, ge=0)
    """Spectrograms and attention maps to tensorboard that often; 0 for none."""


class AcousticPretrainConfig(AcousticConfig, SharedConfig):
    """The whole of pretrain_config.yaml."""

    demo_data: ClassVar[str] = "speech made by eSpeak NG"

    masking: MaskingConfig = Field(default_factory=MaskingConfig)
    datarc: CorpusConfig = Field(default_factory=CorpusConfig)
    dataloader: LoaderConfig = Field(default_factory=LoaderConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    logging: LoggingConfig = Field(default_factory=LoggingConfig)

    def has_data(self) -> bool:
        """Whether any corpus is named; without, the demo recipe runs."""
        return bool(self.datarc.file_path)

    def use_demo_data(self) -> None:
        """Take the demo corpus, making it if need be."""
        from mynah.utility.demo.speech import demo_librispeech  # loads the eSpeak NG library

        self.datarc.file_path = {"demo": str(demo_librispeech())}
