"""The upstream contract: raw signals in, hidden states out.

    expert(signals) -> {"hidden_states": (H_0, ..., H_L), "last_hidden_state": H_L, "lengths": n}

The names are s3prl's, so that its featurizer and downstream code can drive these experts unchanged.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from utility.lengths import pad_signals, zero_padding


class SpeechUpstream(nn.Module, ABC):
    """Base of every speech upstream. A subclass sets the attributes and implements `encode`."""

    modality: ClassVar[str] = "speech"
    name: str
    """The hub entry's name."""
    hidden_size: int
    """D, the width of every hidden state."""
    num_hidden_states: int
    """L + 1, the length of `hidden_states`."""
    samples_per_position: int
    """Input samples from one position to the next."""
    min_samples: int
    """The shortest signal that gives a position."""

    @abstractmethod
    def encode(self, wavs: Tensor, lengths: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """wavs: (B, T) float32, zeros beyond lengths: (B,) int64 samples.

        Returns the hidden states, each (B, N, D), and the (B,) int64 valid positions. What stands in the padded
        positions is up to the subclass; `forward` zeroes it.
        """

    def build_arguments(self) -> dict[str, Any]:
        """Plain keyword arguments with which the hub entry builds this architecture again, for checkpoints."""
        return {}

    @property
    def device(self) -> torch.device:
        return next((tensor.device for tensor in (*self.parameters(), *self.buffers())), torch.device("cpu"))

    def get_downsample_rates(self, key: str = "hidden_states") -> int:
        """Input samples per position, the same for every key."""
        return self.samples_per_position

    def forward(self, signals: Sequence[Tensor]) -> dict[str, Any]:
        """signals: a list of 1-D float waveforms at 16 kHz in [-1, 1], of different lengths, on any device.

        Returns "hidden_states": a tuple of L + 1 tensors (B, N, D) with zeros in padded positions,
        "last_hidden_state": the last of them, and "lengths": (B,) int64 valid positions. An input gives the same
        features alone and in any batch. Raises ValueError for anything but such a list and for signals too short.
        """
        self._check(signals)
        wavs, lengths = pad_signals(signals, self.device)
        states, positions = self.encode(wavs, lengths)
        states = tuple(zero_padding(state, positions) for state in states)
        return {"hidden_states": states, "last_hidden_state": states[-1], "lengths": positions}

    def _check(self, signals: Sequence[Tensor]) -> None:
        if not isinstance(signals, Sequence) or not signals:
            shape = f" of shape {tuple(signals.shape)}" if hasattr(signals, "shape") else ""
            raise ValueError(
                f"{self.name} takes a non-empty list of 1-D waveforms, got "
                f"{'an empty one' if isinstance(signals, Sequence) else f'{type(signals).__name__}{shape}'}; "
                "pass [wav] for a single one"
            )
        for index, signal in enumerate(signals):
            if not isinstance(signal, Tensor) or signal.dim() != 1 or not signal.is_floating_point():
                given = f"{signal.dtype} {tuple(signal.shape)}" if isinstance(signal, Tensor) else type(signal)
                raise ValueError(f"signal {index}: expected a 1-D float tensor in [-1, 1], got {given}")
            if len(signal) < self.min_samples:
                raise ValueError(
                    f"signal {index}: {len(signal)} samples are too short, {self.name} needs {self.min_samples}"
                )
