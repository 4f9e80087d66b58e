"""Decoding of CTC outputs."""

import torch
from torch import Tensor

BLANK = 0
"""The index of the blank."""


def greedy_tokens(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    """The likeliest symbol of each position, repetitions merged, blanks dropped (Graves et al. 2006, sec. 3.2).

    log_probs: (B, N, C); lengths: (B,) valid positions -> B lists of indices.
    """
    best = log_probs.argmax(-1).cpu()
    found = []
    for row, length in zip(best, lengths.tolist(), strict=True):
        merged = torch.unique_consecutive(row[:length])
        found.append(merged[merged != BLANK].tolist())
    return found
