"""Hub entry of frame_timm."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .expert import FrameTimm


def frame_timm(ckpt: Any = None, **overrides: Any) -> "FrameTimm":
    """Any image backbone of timm applied to frames, its features averaged over space; the video baseline.

    Arguments as `load` in `expert.py` documents them.
    """
    from .expert import load

    return load(ckpt, **overrides)
