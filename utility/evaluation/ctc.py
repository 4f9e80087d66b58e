"""Decoding of CTC outputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

BLANK = 0
"""The index of the blank."""


@dataclass(frozen=True)
class Decoded:
    """What was said in one utterance."""

    tokens: list[int]
    """Indices of the symbols, without blanks."""
    positions: list[int]
    """Of each symbol, the position of the features at which it begins."""


def greedy_decode(log_probs: Tensor, lengths: Tensor) -> list[Decoded]:
    """The likeliest symbol of each position, repetitions merged, blanks dropped (Graves et al. 2006, sec. 3.2).

    log_probs: (B, N, C); lengths: (B,) valid positions.
    """
    best = log_probs.argmax(-1).cpu()
    found = []
    for row, length in zip(best, lengths.tolist(), strict=True):
        merged, counts = torch.unique_consecutive(row[:length], return_counts=True)
        starts = counts.cumsum(0) - counts
        said = merged != BLANK
        found.append(Decoded(merged[said].tolist(), starts[said].tolist()))
    return found
