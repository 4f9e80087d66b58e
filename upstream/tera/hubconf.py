"""Hub entry of TERA."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mynah.upstream.acoustic import AcousticUpstream


def tera(ckpt: Any = None, **overrides: Any) -> "AcousticUpstream":
    """TERA: s3prl's published checkpoints of it (Liu et al. 2021).

    Arguments as `upstream.acoustic.load_acoustic_upstream` documents them; `ckpt` is needed.
    """
    from .expert import load

    return load(ckpt, **overrides)
