"""MelHuBERT (Lin et al. 2023, "MelHuBERT: A Simplified HuBERT on Mel Spectrograms")."""

from mynah.utility.acoustic.model import AcousticModel


class MelHubert(AcousticModel):
    """The masked acoustic model that predicts clusters.

    Everything that makes it MelHuBERT stands in `pretrain_config.yaml`: `objective.name: clusters`, log mel
    normalized over the corpus, two frames a position, long masked spans and no mask token. `num_hidden_groups: 1`
    makes it lite; the paper's model has 12.
    """
