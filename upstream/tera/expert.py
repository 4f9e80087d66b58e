"""TERA behind the upstream contract: Mockingjay's network, trained on input altered in time, frequency and magnitude
(Liu et al. 2021, "TERA: Self-Supervised Learning of Transformer Encoder Representation for Speech")."""

from functools import partial

from mynah.upstream.acoustic import load_acoustic_upstream
from mynah.utility.acoustic.model import AcousticModel

__all__ = ["load"]

load = partial(load_acoustic_upstream, "tera", AcousticModel, None)
