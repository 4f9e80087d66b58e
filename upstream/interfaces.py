"""The upstream contract: raw signals in, hidden states out.

    expert(signals) -> {"hidden_states": (H_0, ..., H_L), "last_hidden_state": H_L, "lengths": n}

The names are s3prl's, so that its featurizer and downstream code can drive these experts unchanged.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mynah.utility.nn.padding import pad_signals, zero_padding
from mynah.utility.video.frames import normalize_frames, sample_frames, square_frames


class Upstream(nn.Module, ABC):
    """What speech and video upstreams have in common."""

    modality: ClassVar[str]
    name: str
    """The hub entry's name."""
    hidden_size: int
    """D, the width of every hidden state."""
    num_hidden_states: int
    """L + 1, the length of `hidden_states`."""
    samples_per_position: int
    """Input samples (speech) or frames (video) from one position in time to the next."""
    min_samples: int
    """The shortest signal that gives a position."""

    @abstractmethod
    def forward(self, signals: Sequence[Tensor], num_hidden_states: int | None = None) -> dict[str, Any]:
        """signals: a list of raw inputs -> "hidden_states": a tuple of tensors (B, N, D) with zeros in padded
        positions, "last_hidden_state": the last of them, and "lengths": (B,) int64 valid positions.

        num_hidden_states: of the hidden states only so many, the first, are needed; None for all.
        An input gives the same features alone and in any batch: to 1e-5 in float32, of speech for 480 samples (30 ms)
        or more, and to 1e-4 for 400. (Of two or three frames normalized over the utterance, the rounding of one is
        divided by their difference; how large it is depends on the processor.)
        Raises ValueError for signals of another kind.
        """

    @abstractmethod
    def count_positions(self, samples: int) -> int:
        """Positions that a signal of that many samples or frames gives, for planning memory."""

    def build_arguments(self) -> dict[str, Any]:
        """Plain keyword arguments with which the hub entry builds this architecture again, for checkpoints."""
        return {}

    @property
    def device(self) -> torch.device:
        return next((tensor.device for tensor in (*self.parameters(), *self.buffers())), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the hidden states; `.half()` and `.bfloat16()` change it. Front ends, and the
        features of those without weights, are float32 always."""
        return next((weight.dtype for weight in self.parameters()), torch.float32)

    def get_downsample_rates(self, key: str = "hidden_states") -> int:
        """Input samples or frames per position in time, the same for every key."""
        return self.samples_per_position

    def _check_list(self, signals: Sequence[Tensor], what: str, single: str) -> None:
        if not isinstance(signals, Sequence) or not signals:
            shape = f" of shape {tuple(signals.shape)}" if hasattr(signals, "shape") else ""
            raise ValueError(
                f"{self.name} takes a non-empty list of {what}, got "
                f"{'an empty one' if isinstance(signals, Sequence) else f'{type(signals).__name__}{shape}'}; "
                f"pass [{single}] for a single one"
            )


class SpeechUpstream(Upstream):
    """Base of every speech upstream. A subclass sets the attributes and implements `encode`."""

    modality = "speech"

    @abstractmethod
    def encode(self, wavs: Tensor, lengths: Tensor, num_hidden_states: int) -> tuple[Sequence[Tensor], Tensor]:
        """wavs: (B, T) float32, zeros beyond lengths: (B,) int64 samples.

        Returns the first `num_hidden_states` hidden states, each (B, N, D), and the (B,) int64 valid positions. What
        stands in the padded positions is up to the subclass; `forward` zeroes it.
        """

    def count_positions(self, samples: int) -> int:
        return samples // self.samples_per_position

    @property
    def first_center(self) -> float:
        """Samples from the beginning of a waveform to the middle of what its first position sees."""
        return self.samples_per_position / 2

    def forward(self, signals: Sequence[Tensor], num_hidden_states: int | None = None) -> dict[str, Any]:
        """signals: 1-D float waveforms at 16 kHz in [-1, 1], of different lengths, on any device; see `Upstream`."""
        self._check(signals)
        wavs, lengths = pad_signals(signals, self.device)
        states, positions = self.encode(wavs, lengths, num_hidden_states or self.num_hidden_states)
        states = tuple(zero_padding(state, positions) for state in states)
        return {"hidden_states": states, "last_hidden_state": states[-1], "lengths": positions}

    def _check(self, signals: Sequence[Tensor]) -> None:
        self._check_list(signals, "1-D waveforms", "wav")
        for index, signal in enumerate(signals):
            if not isinstance(signal, Tensor) or signal.dim() != 1 or not signal.is_floating_point():
                given = f"{signal.dtype} {tuple(signal.shape)}" if isinstance(signal, Tensor) else type(signal)
                raise ValueError(f"signal {index}: expected a 1-D float tensor in [-1, 1], got {given}")
            if len(signal) < self.min_samples:
                raise ValueError(
                    f"signal {index}: {len(signal)} samples are too short, {self.name} needs {self.min_samples}"
                )


class VideoUpstream(Upstream):
    """Base of every video upstream. A subclass sets the attributes and implements `encode`.

    A clip of any length and size becomes `frames_per_clip` frames of `frame_size` x `frame_size` pixels, so every
    clip has the same number of positions and nothing is padded.
    """

    modality = "video"
    min_samples = 1
    frames_per_clip: int
    """Frames that are sampled of a clip, evenly spaced."""
    frame_size: int
    """Pixels of the square that is cut out of a frame."""
    num_positions: int
    """N, the positions of a clip, time being the slowest axis."""

    @abstractmethod
    def encode(self, frames: Tensor, num_hidden_states: int) -> Sequence[Tensor]:
        """frames: (B, frames_per_clip, 3, S, S) float32, normalized by ImageNet's mean and deviation.

        Returns the first `num_hidden_states` hidden states, each (B, num_positions, D).
        """

    def caption_decoder(self) -> dict[str, Any] | None:
        """What a captioning task can begin with, where the upstream has been pretrained to caption; else None.

        {"config": plain fields of AlbertConfig, "hard_attention": bool, "tokenizer": its `to_plain()`, "weights": the
        state dict of an AlbertForImageCaptioning that takes H_0 for embedded video (`img_feature_dim` None)}.
        """
        return None

    def count_positions(self, samples: int) -> int:
        return self.num_positions

    def forward(self, signals: Sequence[Tensor], num_hidden_states: int | None = None) -> dict[str, Any]:
        """signals: uint8 RGB clips (T, 3, H, W) of any length and size, on any device; see `Upstream`."""
        self._check(signals)
        frames = torch.stack([self._prepare(clip) for clip in signals])
        states = tuple(
            self.encode(normalize_frames(frames).to(self.dtype), num_hidden_states or self.num_hidden_states)
        )
        lengths = torch.full((len(signals),), self.num_positions, device=frames.device)
        return {"hidden_states": states, "last_hidden_state": states[-1], "lengths": lengths}

    def _prepare(self, clip: Tensor) -> Tensor:
        taken = sample_frames(clip, self.frames_per_clip)
        return square_frames(taken.to(self.device, non_blocking=True), self.frame_size)

    def _check(self, signals: Sequence[Tensor]) -> None:
        self._check_list(signals, "uint8 clips (T, 3, H, W)", "clip")
        for index, signal in enumerate(signals):
            if (
                not isinstance(signal, Tensor)
                or signal.dim() != 4
                or signal.shape[1] != 3
                or signal.dtype != torch.uint8
            ):
                given = f"{signal.dtype} {tuple(signal.shape)}" if isinstance(signal, Tensor) else type(signal)
                raise ValueError(f"signal {index}: expected a uint8 clip (T, 3, H, W), got {given}")
            if 0 in signal.shape:
                raise ValueError(f"signal {index}: a clip of shape {tuple(signal.shape)} has no pixels")
