"""Batches of sequences of different lengths: padding and masks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def lengths_to_mask(lengths: Tensor, max_len: int | None = None) -> Tensor:
    """lengths: (B,) int64 -> (B, max_len) bool, True on valid positions.

    max_len defaults to the longest length.
    """
    max_len = int(lengths.max()) if max_len is None else max_len
    return torch.arange(max_len, device=lengths.device) < lengths[:, None]


def pad_signals(signals: Sequence[Tensor], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """A list of 1-D (T_i,) signals -> zero-padded (B, max T_i) float32 and (B,) int64 lengths on `device`."""
    lengths = torch.tensor([len(signal) for signal in signals], dtype=torch.int64)
    padded = pad_sequence([signal.float() for signal in signals], batch_first=True)
    if device is not None and device.type == "cuda" and padded.device.type == "cpu":
        padded = padded.pin_memory()  # else the copy would not go on beside the computation
    return padded.to(device, non_blocking=True), lengths.to(device, non_blocking=True)


def equal_parts(lengths: Tensor, longest: int) -> Tensor:
    """lengths: (B,) of at least 1 -> (P,), each length as the fewest parts of at most `longest`, row after row.

    The parts of a row are equal but for the last, which has what is left: 10 by at most 4 give 4, 4, 2, as in
    `torch.chunk`.
    """
    parts = []
    for length in lengths.tolist():
        size = -(-length // -(-length // longest))
        parts += [min(size, length - start) for start in range(0, length, size)]
    return torch.tensor(parts, device=lengths.device)


def regroup(x: Tensor, lengths: Tensor, others: Tensor) -> Tensor:
    """x: (B, N, D) rows of lengths: (B,) -> (P, max others, D), the same vectors in order in rows of others: (P,).

    Both lengths have one sum. Padding is zero.
    """
    valid = lengths_to_mask(others)
    grouped = x.new_zeros(*valid.shape, x.shape[2])
    grouped[valid] = x[lengths_to_mask(lengths, x.shape[1])]
    return grouped


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """x: (B, N, D) -> the same with zeros in the positions at and beyond each row's length."""
    return x.masked_fill(~lengths_to_mask(lengths, x.shape[1])[:, :, None], 0.0)
