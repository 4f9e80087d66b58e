"""The configuration of masked acoustic pretraining: the schema of aalbert's, mockingjay's and melhubert's YAML."""

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from mynah.utility.acoustic.masking import MaskingConfig
from mynah.utility.acoustic.objectives import ObjectiveConfig
from mynah.utility.acoustic.trunk import TrunkConfig
from mynah.utility.audio.corpus import CorpusConfig
from mynah.utility.configuration.sections import Section, rules
from mynah.utility.training.config import LoaderConfig, PretrainConfig

MAX_DIGITS = 9
"""Of a layer's number."""


class AcousticConfig(TrunkConfig):
    """What a checkpoint must say for its model to be built again."""

    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)

    @rules
    def _objective_fits_the_features(self) -> Iterable[str | None]:
        name = self.objective.name
        for problem in type(self.objective).REGISTRY[name].misfits(getattr(self.objective, name), self.features):
            yield problem and f"objective.{name}.{problem}"


class AcousticInitConfig(Section):
    """What a new run begins with; "" for none."""

    clusters: str = ""
    """CKPT:LAYER, an earlier checkpoint or experiment, or the name of weights that come with Mynah, and one of its
    hidden states, 0 being the embedded input: the clusters are of these (the second stage of MelHuBERT) rather than
    of a feature."""


class LoggingConfig(Section):
    """What a run draws."""

    pictures_every_n_steps: int = Field(5000, ge=0)
    """Spectrograms and attention maps to tensorboard that often; 0 for none."""


class AcousticPretrainConfig(AcousticConfig, PretrainConfig):
    """The whole of pretrain_config.yaml."""

    demo_data: ClassVar[str] = "speech made by eSpeak NG"

    init: AcousticInitConfig = Field(default_factory=AcousticInitConfig)
    masking: MaskingConfig = Field(default_factory=MaskingConfig)
    datarc: CorpusConfig = Field(default_factory=CorpusConfig)
    dataloader: LoaderConfig = Field(default_factory=LoaderConfig)
    logging: LoggingConfig = Field(default_factory=LoggingConfig)
    compile: bool = False
    """Whether torch.compile makes the encoder. It pays on a GPU where batches are large: a sixth of a full
    recipe's step. It takes half a minute before the first step, and needs a C compiler."""

    @rules
    def _clusters_begin_with_a_teacher(self) -> Iterable[str | None]:
        given = self.init.clusters
        if given and self.objective.name != "clusters":
            yield f"init.clusters: is for objective.name=clusters, got {self.objective.name}"
        source, _, layer = given.rpartition(":")
        if given and not (source and layer.isascii() and layer.isdecimal() and len(layer) < MAX_DIGITS):
            yield f"init.clusters: expected CKPT:LAYER, such as result/pretrain/exp:4, got {given!r}"

    def resolved_keys(self) -> list[str]:
        return ["objective.clusters.teacher"] if self.init.clusters else []

    def has_data(self) -> bool:
        return bool(self.datarc.file_path)

    def use_demo_data(self) -> None:
        from mynah.utility.demo.speech import demo_librispeech  # loads the eSpeak NG library

        self.datarc.file_path = {"demo": str(demo_librispeech())}
