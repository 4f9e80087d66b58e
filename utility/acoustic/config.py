"""The configuration of masked acoustic pretraining: the schema of aalbert's and mockingjay's YAML."""

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from mynah.utility.acoustic.features import AcousticFeaturesConfig
from mynah.utility.acoustic.masking import MaskingConfig
from mynah.utility.acoustic.objectives import ObjectiveConfig
from mynah.utility.audio.corpus import CorpusConfig
from mynah.utility.configuration.sections import Section, rules
from mynah.utility.nn.encoder import EncoderConfig
from mynah.utility.training.config import LoaderConfig, PretrainConfig


class AcousticEncoderConfig(EncoderConfig):
    """The encoder and how frames enter it."""

    frames_per_position: int = Field(3, ge=1)
    """Consecutive frames stacked into one position."""
    mask_token: bool = True
    """Whether a learned vector is added to zeroed positions."""
    max_positions: int | None = Field(None, ge=1)
    """Longer inputs are cut into the fewest equal parts that are not longer; each is encoded by itself, its positions
    counted from 0, as s3prl does. None: whole, however long."""
    ignore_blank_positions: bool = False
    """s3prl's mask of attention: where k positions of a part have input that sums to 0, its last k are not attended
    to."""


class AcousticConfig(Section):
    """What a checkpoint must say for its model to be built again."""

    model: AcousticEncoderConfig = Field(default_factory=AcousticEncoderConfig)
    features: AcousticFeaturesConfig = Field(default_factory=AcousticFeaturesConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)

    @rules
    def _objective_fits_the_features(self) -> Iterable[str | None]:
        name = self.objective.name
        for problem in type(self.objective).REGISTRY[name].misfits(getattr(self.objective, name), self.features):
            yield problem and f"objective.{name}.{problem}"


class LoggingConfig(Section):
    """What a run draws."""

    pictures_every_n_steps: int = Field(5000, ge=0)
    """Spectrograms and attention maps to tensorboard that often; 0 for none."""


class AcousticPretrainConfig(AcousticConfig, PretrainConfig):
    """The whole of pretrain_config.yaml."""

    demo_data: ClassVar[str] = "speech made by eSpeak NG"

    masking: MaskingConfig = Field(default_factory=MaskingConfig)
    datarc: CorpusConfig = Field(default_factory=CorpusConfig)
    dataloader: LoaderConfig = Field(default_factory=LoaderConfig)
    logging: LoggingConfig = Field(default_factory=LoggingConfig)

    def has_data(self) -> bool:
        return bool(self.datarc.file_path)

    def use_demo_data(self) -> None:
        from mynah.utility.demo.speech import demo_librispeech  # loads the eSpeak NG library

        self.datarc.file_path = {"demo": str(demo_librispeech())}
