"""Hub entry of hf_video."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .expert import HuggingFaceVideo


def hf_video(ckpt: Any = None, **options: Any) -> "HuggingFaceVideo":
    """Any video encoder of Hugging Face: VideoMAE, V-JEPA 2, TimeSformer.

    Arguments as `load` in `expert.py` documents them.
    """
    from .expert import load

    return load(ckpt, **options)
