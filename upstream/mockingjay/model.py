"""Mockingjay (Liu et al. 2020, "Mockingjay: Unsupervised Speech Representation Learning with Deep Bidirectional
Transformer Encoders")."""

from mynah.utility.acoustic.model import AcousticModel


class Mockingjay(AcousticModel):
    """The masked acoustic model with a set of encoder weights for each layer.

    Everything that makes it Mockingjay stands in `pretrain_config.yaml`: `num_hidden_groups` equal to
    `num_hidden_layers`, two frames a position, no mask token, and the mel and the linear spectrogram as targets.
    """
