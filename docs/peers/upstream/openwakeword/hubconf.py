"""Hub entry of openwakeword."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .expert import OpenWakeWord


def openwakeword(ckpt: None = None, **options: Any) -> "OpenWakeWord":
    """The speech embedding of openWakeWord 0.4.0, of 0.78 s every 80 ms; weights from its wheel, by onnxruntime.

    Arguments as `load` in `expert.py` documents them.
    """
    from .expert import load

    return load(ckpt, **options)
