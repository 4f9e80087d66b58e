"""vidswin_albert behind the upstream contract, and its pretraining."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.interfaces import VideoUpstream
from mynah.utility.albert.tokenizer import tokenizer_from_plain
from mynah.utility.configuration.load import from_plain, load_config, to_plain
from mynah.utility.configuration.options import options_of_file, set_option
from mynah.utility.experiments.checkpoint import METADATA, load_weights, read_checkpoint, select_weights
from mynah.utility.nn.size import describe_size

from .config import ModelSection, PretrainConfig
from .model import VidSwinAlbert

__all__ = ["PretrainConfig", "VidSwinAlbertUpstream", "build_pretraining", "load"]

NAME = "vidswin_albert"

log = logging.getLogger("mynah")


class VidSwinAlbertUpstream(VideoUpstream):
    """Clips -> the hidden states of their video tokens: H_0 before ALBERT, H_1 .. H_L after its layers.

    They do not depend on any caption, because video tokens never attend to one.
    """

    def __init__(self, model: VidSwinAlbert, tokenizer: Any = None):
        """tokenizer: that of the captions it was pretrained with; None for a model that has seen none."""
        super().__init__()
        config = model.config
        self.name, self.model, self.tokenizer = NAME, model, tokenizer
        self.hidden_size, self.num_hidden_states = config.albert.hidden_size, config.albert.num_hidden_layers + 1
        self.frames_per_clip, self.frame_size = config.num_frames, config.frame_size
        self.num_positions, self.samples_per_position = model.num_positions, config.swin.patch_size[0]

    def encode(self, frames: Tensor, num_hidden_states: int) -> Sequence[Tensor]:
        embedded = self.model.embed(frames)
        if num_hidden_states == 1:
            return (embedded,)
        return self.model.captioner.encode_video(embedded, num_layers=num_hidden_states - 1)

    def caption_decoder(self) -> dict[str, Any] | None:
        if self.tokenizer is None:
            return None
        config = self.model.config
        weights = self.model.captioner.state_dict()
        return {
            "config": to_plain(config.albert.replace(img_feature_dim=None)),
            "hard_attention": config.hard_attention,
            "tokenizer": self.tokenizer.to_plain(),
            "weights": {key: value for key, value in weights.items() if ".img_embedding." not in key},
        }

    def build_arguments(self) -> dict[str, Any]:
        tokenizer = None if self.tokenizer is None else self.tokenizer.to_plain()
        config = to_plain(ModelSection(model=self.model.config))
        return {"config": config, "tokenizer": tokenizer, "random_weights": True}


def load(
    ckpt: str | Path | None = None,
    config: str | Path | dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    random_weights: bool = False,
    **overrides: Any,
) -> VidSwinAlbertUpstream:
    """The hub entry.

    ckpt: a checkpoint's path or URL, or an experiment's directory; its configuration, weights and tokenizer are
    taken. config: a YAML file whose `model` section goes over the checkpoint's or the defaults, or that section as
    plain values, {"model": {...}}, taken alone. tokenizer: its plain form, as checkpoints hold it. overrides: single
    values, `num_frames=8` for `model.num_frames`, {"albert.num_hidden_layers": 3} for what lies deeper. Without
    a checkpoint the weights are random, with a warning unless `random_weights`.
    Raises UserError for anything that does not fit.
    """
    checkpoint = None if ckpt is None else read_checkpoint(ckpt, "pretrain", NAME)
    if checkpoint is None:
        defaults = load_config(PretrainConfig, files=[Path(__file__).with_name("pretrain_config.yaml")])
        plain = {"model": to_plain(defaults.model)}
    else:
        plain, tokenizer = copy.deepcopy(checkpoint[METADATA]["config"]), checkpoint[METADATA]["tokenizer"]
    if config is not None:
        plain = copy.deepcopy(config) if isinstance(config, dict) else options_of_file(plain, Path(config))
    for key, value in overrides.items():
        set_option(plain, f"model.{key.removeprefix('model.')}", value)
    source = f"the options of {NAME}" if config is None or isinstance(config, dict) else str(config)
    model = VidSwinAlbert(from_plain(ModelSection, plain, source).model)
    if checkpoint is not None:
        trained = from_plain(ModelSection, checkpoint[METADATA]["config"], str(ckpt)).model
        weights = model.resize_sparse_attention(select_weights(checkpoint["state_dict"], "model."), trained)
        load_weights(model, weights, ckpt)
        size = describe_size(model.captioner.albert.encoder, model)
        log.info("%s: loaded %s (step %d, %s)", NAME, ckpt, checkpoint[METADATA]["step"], size)
    elif not random_weights:
        log.warning("%s: no checkpoint given, the weights are random (pass ckpt=, or -k)", NAME)
    return VidSwinAlbertUpstream(model, None if tokenizer is None else tokenizer_from_plain(tokenizer))


def build_pretraining(config: PretrainConfig, experiment: Any) -> Any:
    """The LightningModule that pretrains the model as `config` says and writes to `experiment`."""
    from .pretraining import VideoCaptionPretraining  # training only: imports lightning

    return VideoCaptionPretraining(config, experiment)
