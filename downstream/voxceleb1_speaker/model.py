"""The speaker classifier: linear, pooling over time, linear."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from mynah.utility.configuration.sections import Section, one_of
from mynah.utility.nn.pooling import POOLINGS


class SpeakerModelConfig(Section):
    """The classifier's shape."""

    projector_size: int = Field(256, gt=0)
    """Width between the features and the pooling."""
    pooling: Annotated[str, one_of(POOLINGS)] = "mean"
    """One of POOLINGS."""


class SpeakerClassifier(nn.Module):
    """features: (B, N, feature_size), lengths: (B,) int64, at least 1 each -> logits (B, num_speakers)."""

    def __init__(self, feature_size: int, num_speakers: int, projector_size: int, pooling: str):
        super().__init__()
        self.projector = nn.Linear(feature_size, projector_size)
        self.pooling = POOLINGS[pooling](projector_size)
        self.output = nn.Linear(self.pooling.out_size, num_speakers)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.output(self.pooling(self.projector(features), lengths))
