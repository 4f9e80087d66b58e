"""The x-vector network and the additive margin softmax that trains it."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.configuration.sections import Section
from mynah.utility.nn.pooling import StatisticsPooling

CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
"""(positions, distance between them) that a layer sees of the one below (Snyder et al. 2018, table 1)."""
NEEDED_POSITIONS = 1 + sum((size - 1) * dilation for size, dilation in CONTEXTS)
"""That the topmost layer needs for one output."""


class XVectorConfig(Section):
    """Widths of the network, and its loss; the defaults are SUPERB's."""

    projector_size: int = Field(512, gt=0)
    """Of the linear layer on the features."""
    frame_size: int = Field(512, gt=0)
    """Of the first four layers over time."""
    pooled_size: int = Field(1500, gt=0)
    """Of the fifth, whose mean and deviation are taken."""
    embedding_size: int = Field(512, gt=0)
    """Of an embedding, and of the layer above it."""
    scale: float = Field(30.0, gt=0)
    """s of the additive margin softmax."""
    margin: float = Field(0.4, ge=0, lt=2)
    """m of the additive margin softmax: a cosine."""


class XVector(nn.Module):
    """Features over time -> embedding: linear, five layers over time, mean and deviation, linear.

    A layer over time is a convolution without padding. Where fewer positions are there than the topmost needs, the
    last is repeated. `forward` gives (B, embedding_size) before any non-linearity.
    """

    def __init__(self, feature_size: int, config: XVectorConfig):
        super().__init__()
        self.projector = nn.Linear(feature_size, config.projector_size)
        sizes = [config.projector_size, *[config.frame_size] * (len(CONTEXTS) - 1), config.pooled_size]
        self.layers = nn.ModuleList(
            nn.Conv1d(sizes[index], sizes[index + 1], size, dilation=dilation)
            for index, (size, dilation) in enumerate(CONTEXTS)
        )
        self.pooling = StatisticsPooling(config.pooled_size)
        self.embedding = nn.Linear(self.pooling.out_size, config.embedding_size)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """features: (B, N, feature_size); lengths: (B,) int64, at least 1 each; padding never changes the result."""
        x, lengths = repeat_last(self.projector(features), lengths, NEEDED_POSITIONS)
        x = x.transpose(1, 2)
        for layer in self.layers:
            x = layer(x).relu()
        return self.embedding(self.pooling(x.transpose(1, 2), lengths - (NEEDED_POSITIONS - 1)))


class SpeakerHead(nn.Module):
    """Embedding -> cosines with the training speakers, (B, num_speakers): ReLU, linear, ReLU, normalized weights."""

    def __init__(self, size: int, num_speakers: int):
        super().__init__()
        self.hidden = nn.Linear(size, size)
        self.speakers = nn.Parameter(torch.empty(num_speakers, size))
        nn.init.xavier_normal_(self.speakers)

    def forward(self, embeddings: Tensor) -> Tensor:
        hidden = self.hidden(embeddings.relu()).relu()
        return F.linear(F.normalize(hidden.float(), dim=-1), F.normalize(self.speakers.float(), dim=-1))


def additive_margin_loss(cosines: Tensor, speakers: Tensor, scale: float, margin: float) -> Tensor:
    """Cross-entropy of s * (cosine - m at the true speaker), the mean over the batch (Wang et al. 2018, eq. 6).

    cosines: (B, S); speakers: (B,) int64.
    """
    margins = margin * F.one_hot(speakers, cosines.shape[-1])
    return F.cross_entropy(scale * (cosines - margins), speakers)


def repeat_last(x: Tensor, lengths: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """(B, max(N, least), D) with each row's last valid position also at those behind it, and the lengths, `least` or
    more each."""
    lengths = lengths.to(x.device)
    positions = torch.arange(max(x.shape[1], least), device=x.device)
    positions = torch.minimum(positions, lengths[:, None] - 1)
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[-1])), lengths.clamp(min=least)
