"""The configuration of vidswin_albert: the schema of its pretrain_config.yaml."""

from collections.abc import Iterable
from typing import Annotated, ClassVar

from pydantic import Field

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.masked_captions import CaptionMaskingConfig
from mynah.utility.albert.sparse_attention import RESIZINGS
from mynah.utility.captions.corpus import CaptionCorpusConfig
from mynah.utility.configuration.sections import Section, one_of, rules
from mynah.utility.training import config as training

from .video_swin import VideoSwinConfig

OWN_FIELDS = ("img_feature_dim", "sparse_form", "hidden_dropout_prob", "attention_probs_dropout_prob")
"""Fields of model.albert that stay as configured when `init.albert` gives all others."""


class VidSwinAlbertConfig(Section):
    """The shape of the whole model."""

    swin: VideoSwinConfig = Field(default_factory=VideoSwinConfig)
    albert: AlbertConfig = Field(default_factory=AlbertConfig)
    num_frames: int = Field(32, gt=0)
    """Frames that are taken of a clip."""
    frame_size: int = Field(224, gt=0)
    """Pixels of the square that is taken of a frame."""
    sparse_attention: bool = True
    """Learn which video tokens attend to which (Lin et al. 2022, sec. 3.2)."""
    hard_attention: bool = False
    """Take the learned attention as 0 or 1, by 0.5, once it has been learned."""
    sparse_resizing: Annotated[str, one_of(RESIZINGS)] = "interpolate"
    """How weights' sparse attention is carried over to another num_frames: interpolate over time, or block, copies
    along the diagonal with random values beside them."""

    @rules
    def _parts_fit(self) -> Iterable[str | None]:
        if self.albert.img_feature_dim is None:
            yield "albert.img_feature_dim: is the width between Video Swin and ALBERT (512 in SwinBERT), got null"

    def grid(self) -> tuple[int, int, int]:
        """T', H', W': how many video tokens there are in time, height and width."""
        return self.swin.num_positions(self.num_frames, self.frame_size, self.frame_size)


class ModelSection(Section):
    """What a checkpoint must say for its model to be built again, its tokenizer aside."""

    model: VidSwinAlbertConfig = Field(default_factory=VidSwinAlbertConfig)


class InitConfig(Section):
    """Published weights that a new run begins with; "" for none."""

    swin: str = ""
    """A file of Video Swin (official or torchvision's) or of 2-D Swin, which is inflated."""
    albert: str = ""
    """An official ALBERT or BERT folder: its shape, weights and tokenizer come before model.albert and tokenizer, but
    for img_feature_dim, sparse_form and the dropouts of model.albert."""


class TokenizerConfig(Section):
    """Where word pieces come from."""

    file: str = ""
    """A spiece.model or vocab.txt; none: word pieces are trained on the training captions, model.albert.vocab_size
    at most."""
    lower_case: bool = True
    """Whether captions are lower-cased for the file's word pieces."""


class ClipsConfig(CaptionCorpusConfig):
    """The clips of pretraining."""

    valid_fraction: float = Field(0.02, ge=0, le=0.9)
    """The share of the training clips that is held out where there are no dev annotations."""
    split_seed: int = Field(1337, ge=0)
    """Decides which; apart from `seed`, so that no run trains on what another of another seed held out."""


class LossConfig(Section):
    """What is added to the masked words' cross-entropy."""

    sparse_weight: float = Field(0.5, ge=0)
    """Weight of the sparse attention's sparsity."""


class BackboneOptimizerConfig(training.OptimizerConfig):
    """Video Swin learns more slowly than the rest."""

    backbone_factor: float = Field(0.05, ge=0)
    """The backbone's learning rate over `lr`."""


class PretrainConfig(ModelSection, training.PretrainConfig):
    """The whole of pretrain_config.yaml."""

    demo_data: ClassVar[str] = "clips of moving shapes made for it"

    epochs: float | None = Field(None, gt=0)
    """Length of the run in passes over all pairs of clip and caption, where trainer.max_steps is not given."""
    init: InitConfig = Field(default_factory=InitConfig)
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    masking: CaptionMaskingConfig = Field(default_factory=CaptionMaskingConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    datarc: ClipsConfig = Field(default_factory=ClipsConfig)
    dataloader: training.ClipLoaderConfig = Field(default_factory=training.ClipLoaderConfig)
    optimizer: BackboneOptimizerConfig = Field(default_factory=BackboneOptimizerConfig)

    @rules
    def _captions_fit(self) -> Iterable[str | None]:
        if self.masking.max_length > self.model.albert.max_position_embeddings:
            yield (
                f"masking.max_length: {self.masking.max_length} word pieces, but the model has positions for "
                f"{self.model.albert.max_position_embeddings} (model.albert.max_position_embeddings)"
            )

    def needs_max_steps(self) -> bool:
        return self.epochs is None

    def resolved_keys(self) -> list[str]:
        found = [name for name in AlbertConfig.model_fields if name not in OWN_FIELDS]
        return [f"model.albert.{name}" for name in (found if self.init.albert else ("vocab_size", "pad_token_id"))]

    def has_data(self) -> bool:
        return bool(self.datarc.file_path)

    def use_demo_data(self) -> None:
        from mynah.utility.demo.video import demo_vatex  # encodes video

        self.datarc.file_path = str(demo_vatex())
