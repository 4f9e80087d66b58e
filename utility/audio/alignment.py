"""Labels in time, and which of them belongs to a position of an upstream."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mynah.utility.audio.files import SAMPLE_RATE

IGNORED = -100
"""The label of a position that has none, as torch.nn.functional.cross_entropy takes it."""


@dataclass(frozen=True)
class Segment:
    """A label from `start` to `end`, in seconds from the file's beginning; the end does not belong to it."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class PositionGrid:
    """Where an upstream's positions lie in a waveform at 16 kHz."""

    stride: int
    """Samples from one position to the next."""
    first_center: float
    """Samples from the beginning to the middle of what the first position sees."""

    def times(self, count: int, start: int = 0) -> np.ndarray:
        """(count,) float64 seconds from the file's beginning: the centres of the first positions of a signal that
        begins with the file's sample `start`."""
        return (start + self.first_center + self.stride * np.arange(count)) / SAMPLE_RATE

    def count(self, samples: int) -> int:
        """As many positions as a signal of that many samples can have; an upstream may give a few less."""
        return math.ceil(samples / self.stride) + 1


def labels_at(segments: Sequence[tuple[float, float, int]], times: np.ndarray, outside: int = IGNORED) -> np.ndarray:
    """times: (N,) seconds -> (N,) int64: the label of the segment that holds each; `outside` where none does.

    segments: (start, end, label) in seconds, in order of their starts; they should not overlap: of those that do, the
    one that began last is asked.
    """
    found = np.full(len(times), outside, dtype=np.int64)
    if not len(segments):
        return found
    starts, ends, labels = (np.asarray(column) for column in zip(*segments, strict=True))
    index = np.searchsorted(starts, times, side="right") - 1
    inside = (index >= 0) & (times < ends[index.clip(0)])
    found[inside] = labels[index[inside]]
    return found


def segments_at_rate(labels: Iterable[int], seconds: float) -> list[tuple[float, float, int]]:
    """Labels of consecutive frames of that many seconds each, as segments for `labels_at`; equal ones are joined."""
    segments: list[tuple[float, float, int]] = []
    for index, label in enumerate(labels):
        if segments and segments[-1][2] == label:
            segments[-1] = (segments[-1][0], (index + 1) * seconds, label)
        else:
            segments.append((index * seconds, (index + 1) * seconds, label))
    return segments


@dataclass(frozen=True)
class FrameLabels:
    """`at_crop` of LabelledSpeechDataset for labels by positions.

    An utterance's label is its segments (start, end, class index); an item's is (N,) int64, a class a position.
    """

    grid: PositionGrid
    outside: int = IGNORED
    """The class of what no segment covers."""

    def __call__(self, segments: Sequence[tuple[float, float, int]], start: int, samples: int) -> Tensor:
        return torch.from_numpy(labels_at(segments, self.grid.times(self.grid.count(samples), start), self.outside))
