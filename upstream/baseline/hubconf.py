"""Hub entries of the baselines; keyword arguments are fields of their configurations in `model.py`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .expert import UpstreamExpert


def fbank(ckpt: None = None, **overrides: Any) -> "UpstreamExpert":
    """Kaldi log mel filter banks, 80 with two deltas, normalized per utterance; no weights."""
    return _build("fbank", ckpt, overrides)


def mfcc(ckpt: None = None, **overrides: Any) -> "UpstreamExpert":
    """Kaldi cepstral coefficients, 13 with two deltas, normalized per utterance; no weights."""
    return _build("mfcc", ckpt, overrides)


def spectrogram(ckpt: None = None, **overrides: Any) -> "UpstreamExpert":
    """Kaldi log power spectrogram, 257 bins, normalized per utterance; no weights."""
    return _build("spectrogram", ckpt, overrides)


def mel(ckpt: None = None, **overrides: Any) -> "UpstreamExpert":
    """Log mel spectrogram of the pretrained models, 80 bins, normalized per utterance; no weights."""
    return _build("mel", ckpt, overrides)


def linear(ckpt: None = None, **overrides: Any) -> "UpstreamExpert":
    """Log linear spectrogram of the pretrained models, 1024 bins, normalized per utterance; no weights."""
    return _build("linear", ckpt, overrides)


def _build(name: str, ckpt: str | None, overrides: dict[str, Any]) -> "UpstreamExpert":
    from .expert import build

    return build(name, ckpt, overrides)
