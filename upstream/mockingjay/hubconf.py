"""Hub entry of Mockingjay."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mynah.upstream.acoustic import AcousticUpstream


def mockingjay(ckpt: Any = None, **overrides: Any) -> "AcousticUpstream":
    """Mockingjay: six transformer layers over log mel spectrograms (Liu et al. 2020).

    Arguments as `upstream.acoustic.load_acoustic_upstream` documents them.
    """
    from .expert import load

    return load(ckpt, **overrides)
