"""Hub entry of MelHuBERT."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mynah.upstream.acoustic import AcousticUpstream


def melhubert(ckpt: Any = None, **overrides: Any) -> "AcousticUpstream":
    """MelHuBERT: masked clusters of log mel spectrograms, layers shared by default (Lin et al. 2023).

    Arguments as `upstream.acoustic.load_acoustic_upstream` documents them.
    """
    from .expert import load

    return load(ckpt, **overrides)
