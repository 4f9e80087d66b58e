"""Pooling over time: mean, attentive, statistics and attentive statistics pooling.

Every pooling is a module called as `pool(x, lengths)`:
  x: (B, N, D) float; lengths: (B,) int64, valid positions, at least 1 each; returns (B, out_size).
What stands at padded positions never reaches the result, not even NaN.
"""

import torch
from torch import Tensor, nn

from mynah.utility.nn.padding import lengths_to_mask

VARIANCE_FLOOR = 1e-8  # keeps the square root's gradient finite where a dimension does not vary


class MeanPooling(nn.Module):
    """The mean over the valid positions; out_size = D."""

    def __init__(self, size: int):
        super().__init__()
        self.out_size = size

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x, weights = _uniform(x, lengths)
        return _mean(x, weights)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over the valid positions; out_size = 2 D (Snyder et al. 2017)."""

    def __init__(self, size: int):
        super().__init__()
        self.out_size = 2 * size

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x, weights = _uniform(x, lengths)
        return _mean_and_deviation(x, weights)


class AttentivePooling(nn.Module):
    """The mean weighted by a learned attention over the valid positions; out_size = D."""

    def __init__(self, size: int):
        super().__init__()
        self.attention = Attention(size)
        self.out_size = size

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x, weights = self.attention(x, lengths)
        return _mean(x, weights)


class AttentiveStatisticsPooling(nn.Module):
    """Mean and standard deviation with learned weights; out_size = 2 D (Okabe et al. 2018, eq. 5 and 6)."""

    def __init__(self, size: int):
        super().__init__()
        self.attention = Attention(size)
        self.out_size = 2 * size

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x, weights = self.attention(x, lengths)
        return _mean_and_deviation(x, weights)


POOLINGS = {
    "mean": MeanPooling,
    "attentive": AttentivePooling,
    "statistics": StatisticsPooling,
    "attentive_statistics": AttentiveStatisticsPooling,
}
"""By the names of configurations."""


class Attention(nn.Module):
    """A weight a position: softmax over the valid ones of v . tanh(W x + b) (Okabe et al. 2018, eq. 3, 4)."""

    def __init__(self, size: int):
        super().__init__()
        self.hidden = nn.Linear(size, size)
        self.score = nn.Linear(size, 1, bias=False)  # a bias would cancel in the softmax

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x (B, N, D), zero at padding, and weights (B, N, 1) that sum to 1 over the valid ones."""
        x, mask = _without_padding(x, lengths)
        scores = self.score(torch.tanh(self.hidden(x))).float()
        return x, scores.masked_fill(~mask, float("-inf")).softmax(dim=1)


def _uniform(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    x, mask = _without_padding(x, lengths)
    return x, mask / lengths.to(x.device)[:, None, None]


def _without_padding(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    mask = lengths_to_mask(lengths.to(x.device), x.shape[1]).unsqueeze(-1)
    return x.masked_fill(~mask, 0.0), mask


def _mean(x: Tensor, weights: Tensor) -> Tensor:
    return (weights * x).sum(dim=1)


def _mean_and_deviation(x: Tensor, weights: Tensor) -> Tensor:
    mean = _mean(x, weights)
    # From the centred values: E[x^2] - E[x]^2 loses its digits where the mean is large. Padding has weight 0.
    variance = _mean((x - mean.unsqueeze(1)) ** 2, weights)
    return torch.cat([mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()], dim=-1)
