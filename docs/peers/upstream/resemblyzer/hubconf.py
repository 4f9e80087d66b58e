"""Hub entry of resemblyzer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .expert import Resemblyzer


def resemblyzer(ckpt: None = None, **options: Any) -> "Resemblyzer":
    """The speaker encoder of Resemblyzer 0.1.4, a d-vector of each 1.6 s; weights from its wheel.

    Arguments as `load` in `expert.py` documents them.
    """
    from .expert import load

    return load(ckpt, **options)
