"""Hub entry of vidswin_albert."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .expert import VidSwinAlbertUpstream


def vidswin_albert(ckpt: Any = None, **overrides: Any) -> "VidSwinAlbertUpstream":
    """Video Swin under ALBERT, pretrained to caption clips (SwinBERT with a lite BERT; Lin et al. 2022).

    Arguments as `upstream/vidswin_albert/expert.py` documents them under `load`.
    """
    from .expert import load

    return load(ckpt, **overrides)
