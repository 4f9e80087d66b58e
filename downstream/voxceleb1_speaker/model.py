"""The speaker classifier: linear, pooling over time, linear."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from mynah.utility.configuration.checks import choice_problem, positive_problem
from mynah.utility.nn.pooling import AttentivePooling, AttentiveStatisticsPooling, MeanPooling, StatisticsPooling

POOLINGS = {
    "mean": MeanPooling,
    "attentive": AttentivePooling,
    "statistics": StatisticsPooling,
    "attentive_statistics": AttentiveStatisticsPooling,
}


@dataclass
class SpeakerModelConfig:
    """The classifier's shape."""

    projector_size: int = 256
    """Width between the features and the pooling."""
    pooling: str = "mean"
    """One of POOLINGS."""

    def problems(self) -> Iterable[str | None]:
        yield positive_problem("projector_size", self.projector_size)
        yield choice_problem("pooling", self.pooling, POOLINGS)


class SpeakerClassifier(nn.Module):
    """features: (B, N, feature_size), lengths: (B,) int64, at least 1 each -> logits (B, num_speakers)."""

    def __init__(self, feature_size: int, num_speakers: int, projector_size: int, pooling: str):
        super().__init__()
        self.projector = nn.Linear(feature_size, projector_size)
        self.pooling = POOLINGS[pooling](projector_size)
        self.output = nn.Linear(self.pooling.out_size, num_speakers)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.output(self.pooling(self.projector(features), lengths))
