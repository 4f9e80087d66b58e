"""Image backbones of timm behind the upstream contract, a frame at a time."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.interfaces import VideoUpstream
from mynah.utility.configuration.load import to_plain
from mynah.utility.configuration.options import flat_options
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import load_weights
from mynah.utility.experiments.weight_files import read_weights

from .model import FrameBackbone, FrameTimmConfig

NAME = "frame_timm"
LOG = logging.getLogger("mynah")


class FrameTimm(VideoUpstream):
    """One hidden state, one position a frame: the backbone's features, averaged over space."""

    num_hidden_states = 1
    samples_per_position = 1

    def __init__(self, config: FrameTimmConfig, model: FrameBackbone):
        super().__init__()
        self.name, self.config, self.model = NAME, config, model
        self.hidden_size, self.frame_size = model.feature_size, model.frame_size
        self.frames_per_clip = self.num_positions = config.frames_per_clip

    def encode(self, frames: Tensor, num_hidden_states: int) -> Sequence[Tensor]:
        return (self.model(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]),)

    def build_arguments(self) -> dict[str, Any]:
        return {**to_plain(self.config), "pretrained": False, "random_weights": True}


def load(
    ckpt: str | Path | None = None, config: str | Path | None = None, random_weights: bool = False, **overrides: Any
) -> FrameTimm:
    """The hub entry.

    ckpt: the path or URL of a file of the backbone's weights as timm names them (.pth, .safetensors), with or without
    the classifier. config: a YAML file with fields of FrameTimmConfig. overrides: such fields, which come before
    the file's. With neither ckpt nor `pretrained` the weights are random, with a warning unless `random_weights`.
    Raises UserError for unknown or impossible options, and for weights that do not fit.
    """
    settings = flat_options(FrameTimmConfig, config, overrides, NAME)
    if ckpt is not None and settings.pretrained:
        raise UserError(
            f"{NAME}: both ckpt={ckpt} and pretrained=True were given; give the one whose weights to take"
        )
    model = FrameBackbone(settings)
    parameters = f"{settings.model_name}, {sum(one.numel() for one in model.parameters()) / 1e6:.2f} M parameters"
    if ckpt is not None:
        weights = read_weights(ckpt, f"the weights of timm's {settings.model_name}")
        kept = {name: weight for name, weight in weights.items() if not name.startswith(model.classifiers)}
        load_weights(model.backbone, kept, ckpt)
        LOG.info("%s: loaded %s (%s)", NAME, ckpt, parameters)
    elif settings.pretrained:
        LOG.info("%s: loaded timm's weights (%s)", NAME, parameters)
    elif not random_weights:
        LOG.warning("%s: no checkpoint given, the weights are random (pass ckpt=, -k, or pretrained=True)", NAME)
    return FrameTimm(settings, model)
