"""Hub entry of Audio ALBERT."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mynah.upstream.acoustic import AcousticUpstream


def aalbert(ckpt: Any = None, **overrides: Any) -> "AcousticUpstream":
    """Audio ALBERT: one transformer layer applied six times to log mel spectrograms (Chi et al. 2021).

    Arguments as `upstream.acoustic.load_acoustic_upstream` documents them.
    """
    from .expert import load

    return load(ckpt, **overrides)
