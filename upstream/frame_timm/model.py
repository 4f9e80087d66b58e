"""A backbone of timm without its classifier: frames in, one vector a frame out."""

import difflib
import math
from collections.abc import Iterable

import timm
import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.configuration.sections import Section, rules
from mynah.utility.errors import UserError
from mynah.utility.video.frames import renormalization


class FrameTimmConfig(Section):
    """Which backbone sees what of a clip."""

    model_name: str = "resnet18"
    """A name of timm.list_models(), with or without the tag of its weights (vit_tiny_patch16_224.augreg_in21k)."""
    frames_per_clip: int = Field(16, gt=0)
    """Frames that are sampled of a clip."""
    frame_size: int | None = Field(None, gt=0)
    """Pixels of the square that is taken of a frame; null for the size that the backbone was made for."""
    pretrained: bool = False
    """Whether timm downloads its weights for it."""

    @rules
    def _name_is_known(self) -> Iterable[str | None]:
        yield _name_problem(self.model_name)


class FrameBackbone(nn.Module):
    """Frames -> the mean over space of the backbone's last feature map or tokens.

    Raises UserError where timm cannot build the model, get its weights, or run it on frames of that size.
    """

    def __init__(self, config: FrameTimmConfig):
        super().__init__()
        self.name = config.model_name
        settings = timm.get_pretrained_cfg(self.name).to_dict()
        self.frame_size = config.frame_size or settings["input_size"][-1]
        # Backbones with positions of their own are built for a size; the others take any and know no such option.
        sizes = {"img_size": self.frame_size} if settings.get("fixed_input_size") else {}
        try:
            self.backbone = timm.create_model(self.name, pretrained=config.pretrained, num_classes=0, **sizes)
        except Exception as error:  # whatever the network, the hub's client or the model's constructor raise
            what = "download" if config.pretrained else "build"
            advice = "; give a file of its weights (ckpt=, -k), or leave pretrained out" if config.pretrained else ""
            raise UserError(f"timm could not {what} {self.name}: {error}{advice}") from error
        names = settings.get("classifier") or ()
        self.classifiers = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
        # The contract's frames have ImageNet's statistics; some backbones want others.
        scale, shift = renormalization(settings["mean"], settings["std"])
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.feature_size = self._probe()

    def forward(self, frames: Tensor) -> Tensor:
        """frames: (B, 3, S, S), normalized by ImageNet's mean and deviation -> (B, feature_size) of that type."""
        features = self.backbone.forward_features(frames * self.scale + self.shift)
        return self._mean_over_space(features).to(frames.dtype)

    def _mean_over_space(self, features: Tensor) -> Tensor:
        if features.dim() == 3:  # tokens (B, N, D): those of no place (class, registers) before a square of others
            num_places = math.isqrt(features.shape[1]) ** 2
            prefix = getattr(self.backbone, "num_prefix_tokens", features.shape[1] - num_places)
            return features[:, prefix:].mean(1)
        if str(getattr(self.backbone, "output_fmt", "NCHW")).endswith("NHWC"):
            return features.mean((1, 2))
        return features.mean((2, 3))

    def _probe(self) -> int:
        """The width of the features, from running one frame."""
        training = self.training
        try:
            with torch.no_grad():
                features = self.eval()(torch.zeros(1, 3, self.frame_size, self.frame_size))
        except Exception as error:  # timm's thousand models fail each in its own way
            raise UserError(
                f"timm's {self.name} does not turn frames of {self.frame_size} pixels into features that can be "
                f"averaged over space: {error}; choose another frame_size or model_name"
            ) from error
        self.train(training)
        return features.shape[1]


def _name_problem(name: str) -> str | None:
    """What is wrong if timm has no model, or no weights of a model, of that name."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        near = difflib.get_close_matches(architecture.lower(), timm.list_models(), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"model_name: timm {timm.__version__} has no model {architecture!r}{hint}"
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in known:
        return (
            f"model_name: timm {timm.__version__} has no weights {tag!r} of {architecture}; it has {', '.join(known)}"
        )
    return None
