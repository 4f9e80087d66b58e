"""The configuration of masked acoustic pretraining: the schema of aalbert's and mockingjay's YAML."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from mynah.utility.acoustic.masking import MaskingConfig
from mynah.utility.acoustic.model import AcousticEncoderConfig, AcousticFeaturesConfig
from mynah.utility.audio.corpus import CorpusConfig
from mynah.utility.training.config import (
    CheckpointConfig,
    LoaderConfig,
    OptimizerConfig,
    SchedulerConfig,
    SharedConfig,
)


@dataclass
class AcousticConfig:
    """What a checkpoint must say for its model to be built again."""

    model: AcousticEncoderConfig = field(default_factory=AcousticEncoderConfig)
    features: AcousticFeaturesConfig = field(default_factory=AcousticFeaturesConfig)


@dataclass
class LoggingConfig:
    """What a run draws."""

    pictures_every_n_steps: int = 5000
    """Spectrograms and attention maps to tensorboard that often; 0 for none."""

    def problems(self) -> Iterable[str]:
        if self.pictures_every_n_steps < 0:
            yield f"pictures_every_n_steps: must not be negative, got {self.pictures_every_n_steps}"


@dataclass
class AcousticPretrainConfig(AcousticConfig, SharedConfig):
    """The whole of pretrain_config.yaml."""

    demo_data: ClassVar[str] = "speech made by eSpeak NG"

    masking: MaskingConfig = field(default_factory=MaskingConfig)
    datarc: CorpusConfig = field(default_factory=CorpusConfig)
    dataloader: LoaderConfig = field(default_factory=LoaderConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def has_data(self) -> bool:
        """Whether any corpus is named; without, the demo recipe runs."""
        return bool(self.datarc.file_path)

    def use_demo_data(self) -> None:
        """Take the demo corpus, making it if need be."""
        from mynah.utility.demo.speech import demo_librispeech  # loads the eSpeak NG library

        self.datarc.file_path = {"demo": str(demo_librispeech())}
