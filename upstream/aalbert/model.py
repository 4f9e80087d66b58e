"""Audio ALBERT (Chi et al. 2021, "Audio ALBERT: A Lite BERT for Self-supervised Learning of Audio
Representation")."""

from mynah.utility.acoustic.model import AcousticModel


class AudioAlbert(AcousticModel):
    """The masked acoustic model with one set of encoder weights for all its layers.

    Everything that makes it Audio ALBERT stands in `pretrain_config.yaml`: `num_hidden_groups: 1`, a delta on the
    input, three frames a position, a mask token, and the linear spectrogram as the only target.
    """
