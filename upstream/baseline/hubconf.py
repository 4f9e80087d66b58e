"""Hub entries of the baselines.

Keyword arguments are fields of their configurations in `model.py`; `config` is a YAML file of such fields.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .expert import UpstreamExpert


def fbank(ckpt: None = None, config: str | None = None, **overrides: Any) -> "UpstreamExpert":
    """Kaldi log mel filter banks, 80 with two deltas, normalized per utterance; no weights."""
    return _build("fbank", ckpt, config, overrides)


def mfcc(ckpt: None = None, config: str | None = None, **overrides: Any) -> "UpstreamExpert":
    """Kaldi cepstral coefficients, 13 with two deltas, normalized per utterance; no weights."""
    return _build("mfcc", ckpt, config, overrides)


def spectrogram(ckpt: None = None, config: str | None = None, **overrides: Any) -> "UpstreamExpert":
    """Kaldi log power spectrogram, 257 bins, normalized per utterance; no weights."""
    return _build("spectrogram", ckpt, config, overrides)


def mel(ckpt: None = None, config: str | None = None, **overrides: Any) -> "UpstreamExpert":
    """Log mel spectrogram of the pretrained models, 80 bins, normalized per utterance; no weights."""
    return _build("mel", ckpt, config, overrides)


def linear(ckpt: None = None, config: str | None = None, **overrides: Any) -> "UpstreamExpert":
    """Log linear spectrogram of the pretrained models, 1024 bins, normalized per utterance; no weights."""
    return _build("linear", ckpt, config, overrides)


def _build(name: str, ckpt: str | None, config: str | None, overrides: dict[str, Any]) -> "UpstreamExpert":
    from .expert import build

    return build(name, ckpt, config, overrides)
