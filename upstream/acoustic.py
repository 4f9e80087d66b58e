"""The expert of masked acoustic models, which aalbert, melhubert, mockingjay and tera share."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.interfaces import SpeechUpstream
from mynah.utility.acoustic.config import AcousticConfig, AcousticPretrainConfig
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.acoustic.s3prl import config_of_s3prl, weights_of_s3prl
from mynah.utility.acoustic.trunk import AcousticTrunk, TrunkConfig
from mynah.utility.configuration.load import from_plain, load_config, to_plain
from mynah.utility.configuration.options import options_of_file, set_option
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import (
    METADATA,
    load_weights,
    locate_checkpoint,
    read_checkpoint,
    select_weights,
    without,
)
from mynah.utility.experiments.s3prl_files import read_s3prl
from mynah.utility.experiments.shipped import describe_source
from mynah.utility.nn.padding import pad_signals
from mynah.utility.nn.size import describe_size

log = logging.getLogger("mynah")


class AcousticUpstream(SpeechUpstream):
    """Waveforms -> the hidden states of an acoustic model: H_0, the embedded input, to H_L.

    model: an `AcousticModel`, or of weights that were exported without their objective an `AcousticTrunk`.
    """

    def __init__(self, name: str, model: AcousticTrunk):
        super().__init__()
        self.name, self.model = name, model
        self.hidden_size = model.config.model.hidden_size
        self.num_hidden_states = model.config.model.num_hidden_layers + 1
        positions = model.positions
        self.samples_per_position, self.min_samples = positions.samples_per_position, positions.min_samples

    @property
    def first_center(self) -> float:
        return self.model.positions.first_center

    def encode(self, wavs: Tensor, lengths: Tensor, num_hidden_states: int) -> tuple[Sequence[Tensor], Tensor]:
        states, positions, _ = self.model(wavs, lengths, num_layers=num_hidden_states - 1)
        return states, positions

    def attentions(self, signals: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The attention maps of every layer, (B, heads, N, N) each, and the (B,) valid positions.

        Rows attend to columns; rows beyond an input's positions mean nothing.
        """
        self._check(signals)
        wavs, lengths = pad_signals(signals, self.device)
        _, positions, attentions = self.model(wavs, lengths, return_attentions=True)
        return attentions, positions

    def build_arguments(self) -> dict[str, Any]:
        without = {} if isinstance(self.model, AcousticModel) else {"objective": None}
        return {"config": {**to_plain(self.model.config), **without}, "random_weights": True}


def load_acoustic_upstream(
    name: str,
    model_class: type[AcousticModel],
    defaults: Path | None,
    ckpt: str | Path | None = None,
    config: str | Path | dict[str, Any] | None = None,
    random_weights: bool = False,
    **overrides: Any,
) -> AcousticUpstream:
    """What the hub entries of aalbert, melhubert, mockingjay and tera do.

    defaults: the plugin's pretrain_config.yaml; None where it has none. ckpt: a checkpoint's path or URL, an
    experiment's directory, or the name of weights that come with Mynah, such as "small"; its configuration and
    weights are taken. It may be one of s3prl's. config: a YAML file whose sections `model`, `features` and
    `objective` go over the checkpoint's or the defaults, or these sections as plain values, taken alone; where
    `objective` is None, as in exported weights, the model is built without one. overrides: single values,
    `num_hidden_layers=3` for `model.num_hidden_layers`. Without a checkpoint the weights are random, with a warning
    unless `random_weights`.
    Raises UserError for anything that does not fit.
    """
    trained = None if ckpt is None else _read_trained(name, ckpt)
    if trained is not None:
        plain = copy.deepcopy(trained.config)
    elif defaults is not None:
        plain = _sections(defaults)
    elif isinstance(config, dict):
        plain = {}
    else:
        raise UserError(
            f"{name} has no configuration of its own; give one of s3prl's checkpoints of it with -k (ckpt=)"
        )
    if config is not None:
        plain = copy.deepcopy(config) if isinstance(config, dict) else options_of_file(plain, Path(config))
    for key, value in overrides.items():
        set_option(plain, key if "." in key else f"model.{key}", value)
    source = f"the options of {name}" if config is None or isinstance(config, dict) else str(config)
    if trained is not None and config is None and not overrides:
        source = str(ckpt)
    model, dropped = _build_model(model_class, plain, source)
    if trained is not None:
        load_weights(model, without(trained.weights, *dropped), ckpt)
        size = describe_size(model.encoder, model)
        where = describe_source(ckpt, name)
        log.info("%s: loaded %s (%sstep %d, %s)", name, where, trained.origin, trained.step, size)
    elif not random_weights:
        log.warning("%s: no checkpoint given, the weights are random (pass ckpt=, or -k)%s", name, _unmeasured(model))
    return AcousticUpstream(name, model)


def _build_model(
    model_class: type[AcousticModel], plain: dict[str, Any], source: str
) -> tuple[AcousticTrunk, tuple[str, ...]]:
    """The model of these sections, and the beginnings of the names of a checkpoint's weights that it does without."""
    if plain.get("objective", {}) is None:
        sections = {name: value for name, value in plain.items() if name != "objective"}
        return AcousticTrunk(from_plain(TrunkConfig, sections, source)), ()
    model = model_class(from_plain(AcousticConfig, plain, source))
    return model, model.drop_training_parts()


@dataclass(frozen=True)
class _Trained:
    """What is taken of a checkpoint."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    step: int
    origin: str = ""


def _read_trained(name: str, ckpt: str | Path) -> _Trained:
    path = locate_checkpoint(ckpt, name)
    theirs = read_s3prl(path)
    if theirs is None:
        checkpoint = read_checkpoint(path, "pretrain", name)
        weights = select_weights(checkpoint["state_dict"], "model.")
        return _Trained(checkpoint[METADATA]["config"], weights, checkpoint[METADATA]["step"])
    if name not in theirs.upstreams:
        layers = "share their weights" if "aalbert" in theirs.upstreams else "have weights of their own"
        advice = " or ".join(f"-u {one}" for one in theirs.upstreams)
        raise UserError(f"{path}: a model of s3prl whose layers {layers}, which is no '{name}'; give {advice}")
    config = config_of_s3prl(theirs, path)
    return _Trained(config, weights_of_s3prl(theirs, config, path), theirs.step, "of s3prl, ")


def _unmeasured(model: AcousticTrunk) -> str:
    """What to say of a model without a checkpoint whose features are to be normalized over a corpus."""
    if not model.features.statistics:
        return ""
    return "; features that cmvn=corpus normalizes stay as they are, for want of a corpus' statistics"


def _sections(defaults: Path) -> dict[str, Any]:
    """The plain sections of the defaults that say how the model is built."""
    plain = to_plain(load_config(AcousticPretrainConfig, files=[defaults]))
    return {name: plain[name] for name in AcousticConfig.model_fields}
