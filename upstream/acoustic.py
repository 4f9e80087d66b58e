"""The expert of masked acoustic models, which aalbert, mockingjay and melhubert share."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.interfaces import SpeechUpstream
from mynah.utility.acoustic.config import AcousticConfig, AcousticPretrainConfig
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.configuration.load import from_plain, load_config, to_plain
from mynah.utility.configuration.options import options_of_file, set_option
from mynah.utility.experiments.checkpoint import METADATA, load_weights, read_checkpoint, select_weights, without
from mynah.utility.nn.padding import pad_signals
from mynah.utility.nn.size import describe_size

log = logging.getLogger("mynah")


class AcousticUpstream(SpeechUpstream):
    """Waveforms -> the hidden states of an `AcousticModel`: H_0, the embedded input, to H_L."""

    def __init__(self, name: str, model: AcousticModel):
        super().__init__()
        self.name, self.model = name, model
        self.hidden_size = model.config.model.hidden_size
        self.num_hidden_states = model.config.model.num_hidden_layers + 1
        positions = model.positions
        self.samples_per_position, self.min_samples = positions.samples_per_position, positions.min_samples

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
        return {"config": to_plain(self.model.config), "random_weights": True}


def load_acoustic_upstream(
    name: str,
    model_class: type[AcousticModel],
    defaults: Path,
    ckpt: str | Path | None = None,
    config: str | Path | dict[str, Any] | None = None,
    random_weights: bool = False,
    **overrides: Any,
) -> AcousticUpstream:
    """What the hub entries of aalbert, mockingjay and melhubert do.

    defaults: the plugin's pretrain_config.yaml. ckpt: a checkpoint's path or URL, or an experiment's directory; its
    configuration and weights are taken. config: a YAML file whose sections `model`, `features` and `objective` go
    over the checkpoint's or the defaults, or these sections as plain values, taken alone. overrides: single values,
    `num_hidden_layers=3` for `model.num_hidden_layers`. Without a checkpoint the weights are random, with a warning
    unless `random_weights`.
    Raises UserError for anything that does not fit.
    """
    checkpoint = None if ckpt is None else read_checkpoint(ckpt, "pretrain", name)
    plain = _sections(defaults) if checkpoint is None else checkpoint[METADATA]["config"]
    if config is not None:
        plain = copy.deepcopy(config) if isinstance(config, dict) else options_of_file(plain, Path(config))
    for key, value in overrides.items():
        set_option(plain, key if "." in key else f"model.{key}", value)
    source = f"the options of {name}" if config is None or isinstance(config, dict) else str(config)
    chosen = from_plain(AcousticConfig, plain, source)

    model = model_class(chosen)
    dropped = model.drop_training_parts()
    if checkpoint is not None:
        load_weights(model, without(select_weights(checkpoint["state_dict"], "model."), *dropped), ckpt)
        size = describe_size(model.encoder, model)
        log.info("%s: loaded %s (step %d, %s)", name, ckpt, checkpoint[METADATA]["step"], size)
    elif not random_weights:
        log.warning("%s: no checkpoint given, the weights are random (pass ckpt=, or -k)%s", name, _unmeasured(model))
    return AcousticUpstream(name, model)


def _unmeasured(model: AcousticModel) -> str:
    """What to say of a model without a checkpoint whose features are to be normalized over a corpus."""
    if not model.features.statistics:
        return ""
    return "; features that cmvn=corpus normalizes stay as they are, for want of a corpus' statistics"


def _sections(defaults: Path) -> dict[str, Any]:
    """The plain sections of the defaults that say how the model is built."""
    plain = to_plain(load_config(AcousticPretrainConfig, files=[defaults]))
    return {name: plain[name] for name in AcousticConfig.model_fields}
