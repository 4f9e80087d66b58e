"""How frames go into each family of video encoders, and which states come out."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mynah.upstream.huggingface import build_model
from mynah.utility.video.frames import IMAGENET_DEVIATION, IMAGENET_MEAN, renormalization

NAME = "hf_video"


@dataclass(frozen=True)
class Normalization:
    """The mean and the deviation, of pixels in [0, 1], that a model's frames have."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    deviation: tuple[float, ...] = IMAGENET_DEVIATION

    @classmethod
    def of(cls, default: "Normalization", mean: Any, deviation: Any, scale: Any = 1.0) -> "Normalization":
        """mean, deviation: a number or one for each color, of pixels in [0, scale]; None for that of `default`.

        Raises ValueError for anything else.
        """
        found = []
        for values, otherwise in ((mean, default.mean), (deviation, default.deviation)):
            each = tuple(values) if isinstance(values, list | tuple) else 3 * (values,)
            each = otherwise if values is None else each
            if len(each) != 3 or not all(isinstance(value, int | float) and math.isfinite(value) for value in each):
                raise ValueError(f"frames are normalized by a number for each of 3 colors, got {values!r}")
            found.append(each)
        if not isinstance(scale, int | float) or not math.isfinite(scale) or scale <= 0 or min(found[1]) <= 0:
            raise ValueError(f"frames are normalized by numbers above 0, got {found[1]} of pixels in [0, {scale!r}]")
        return cls(*(tuple(value / scale for value in each) for each in found))


@dataclass(frozen=True)
class Geometry:
    """What a model reads of a clip, and the positions that come out.

    Raises ValueError for what no clip can give.
    """

    num_frames: int
    frame_size: int
    tubelet_size: int
    """Frames of one position."""
    patch_size: int
    """Pixels of one position, to each side."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more, its config.json gives {value!r}")
        if self.num_frames < self.tubelet_size:
            raise ValueError(f"{self.num_frames} frames are too few for positions of {self.tubelet_size} frames")
        if self.frame_size < self.patch_size:
            raise ValueError(f"frames of {self.frame_size} pixels are too small for patches of {self.patch_size}")

    @property
    def frames_used(self) -> int:
        """Those that fill positions; frames beyond would be sampled in vain."""
        return self.num_steps * self.tubelet_size

    @property
    def num_steps(self) -> int:
        return self.num_frames // self.tubelet_size

    @property
    def num_places(self) -> int:
        return (self.frame_size // self.patch_size) ** 2


class VideoEncoder(nn.Module):
    """model: one of transformers without a head. H_0 is what enters the first layer, H_L what leaves the model, its
    last norm included where it has one.
    """

    frames_field: ClassVar[str] = "num_frames"
    size_field: ClassVar[str] = "image_size"
    channels_field: ClassVar[str] = "num_channels"
    published: ClassVar[Normalization] = Normalization()
    """Of the family's published models."""
    unused: ClassVar[tuple[str, ...]] = ()
    """Prefixes of weights that no feature depends on."""

    def __init__(self, model: nn.Module, normalization: Normalization):
        super().__init__()
        self.model, self.geometry, self.normalization = model, self.geometry_of(model.config), normalization
        self.hidden_size, self.num_hidden_states = model.config.hidden_size, model.config.num_hidden_layers + 1
        scale, shift = renormalization(normalization.mean, normalization.deviation)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    @classmethod
    def geometry_of(cls, config: Any) -> Geometry:
        """Raises ValueError for a configuration of frames that are not square or have no three colors."""
        channels = getattr(config, cls.channels_field)
        if channels != 3:
            raise ValueError(f"frames have 3 colors, its config.json gives {cls.channels_field} {channels!r}")
        return Geometry(
            getattr(config, cls.frames_field),
            _side(config, cls.size_field),
            cls.tubelet_of(config),
            _side(config, "patch_size"),
        )

    @staticmethod
    def tubelet_of(config: Any) -> int:
        """Frames of a position."""
        return config.tubelet_size

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """frames: (B, frames_used, 3, S, S), normalized by ImageNet's mean and deviation -> L + 1 of (B, N, D)."""
        output = self.run(frames * self.scale + self.shift)
        states = (*output.hidden_states[:-1], output.last_hidden_state)
        return tuple(self.ordered(state, len(frames)) for state in states)

    def run(self, frames: Tensor) -> Any:
        """What the model gives for frames as it was trained with."""
        return self.model(frames, output_hidden_states=True)

    def ordered(self, state: Tensor, batch: int) -> Tensor:
        """A state as the model gives it -> (B, N, D), time slowest, without tokens of no place in the clip."""
        return state


class VideoMae(VideoEncoder):
    """VideoMAE (Tong et al. 2022)."""


class VJepa2(VideoEncoder):
    """V-JEPA 2 (Assran et al. 2025) without its predictor; as positions are rotary, any number of frames will do."""

    frames_field, size_field, channels_field = "frames_per_clip", "crop_size", "in_chans"
    unused = ("predictor.",)

    def __init__(self, model: nn.Module, normalization: Normalization):
        super().__init__(model, normalization)
        model.predictor = nn.Identity()

    def run(self, frames: Tensor) -> Any:
        return self.model(frames, skip_predictor=True, output_hidden_states=True)


class TimeSformer(VideoEncoder):
    """TimeSformer (Bertasius et al. 2021), whose class token is dropped; a position is of one frame."""

    published = Normalization((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))

    @staticmethod
    def tubelet_of(config: Any) -> int:
        return 1

    def ordered(self, state: Tensor, batch: int) -> Tensor:
        places = state[:, 1:]
        if self.model.config.attention_type == "space_only":  # frame by frame
            return places.unflatten(0, (batch, -1)).flatten(1, 2)
        return places.unflatten(1, (-1, self.geometry.num_steps)).transpose(1, 2).flatten(1, 2)


FAMILIES: dict[str, type[VideoEncoder]] = {"videomae": VideoMae, "vjepa2": VJepa2, "timesformer": TimeSformer}
"""`model_type` in a model's config.json -> how it is run."""


def check_runs(config: Any) -> None:
    """Run a model of that configuration on shapes alone, without memory for weights or frames.

    Raises ValueError where no hidden states come out as the contract of video upstreams has them.
    """
    family = FAMILIES[config.model_type]
    geometry = family.geometry_of(config)
    try:
        with torch.device("meta"), torch.no_grad():
            encoder = family(build_model(NAME, copy.deepcopy(config)), family.published).eval()
            size = geometry.frame_size
            states: Sequence[Tensor] = encoder(torch.zeros(2, geometry.frames_used, 3, size, size))
    except Exception as error:  # each family's constructor and layers raise their own
        raise ValueError(f"a {config.model_type} of its config.json does not run: {error}") from error
    found = {tuple(state.shape) for state in states}
    expected = (2, geometry.num_steps * geometry.num_places, encoder.hidden_size)
    if found != {expected} or len(states) != encoder.num_hidden_states:
        raise ValueError(
            f"a {config.model_type} of its config.json gives {len(states)} hidden states of shapes {sorted(found)}, "
            f"not {encoder.num_hidden_states} of {expected}"
        )


def _side(config: Any, field: str) -> Any:
    """A size in pixels, to each side; some configurations give height and width."""
    value = getattr(config, field)
    if not isinstance(value, list | tuple):
        return value
    if len(value) != 2 or value[0] != value[1]:
        raise ValueError(f"clips are cut to squares, its config.json gives {field} {list(value)}")
    return value[0]
