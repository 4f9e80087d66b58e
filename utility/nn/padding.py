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
    if device is not None and device.type == "cuda":
        padded = padded.pin_memory()  # else the copy would not go on beside the computation
    return padded.to(device, non_blocking=True), lengths.to(device, non_blocking=True)


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """x: (B, N, D) -> the same with zeros in the positions at and beyond each row's length."""
    return x.masked_fill(~lengths_to_mask(lengths, x.shape[1])[:, :, None], 0.0)
