"""The contract of front ends: waveforms in, spectral features by frames out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mynah.utility.configuration.sections import Section
from mynah.utility.nn.precision import SinglePrecision


@dataclass(frozen=True)
class Framing:
    """Where frames lie in a waveform. It is small, so that workers can count frames without the front end."""

    hop: int
    """Samples from one frame to the next."""
    first: int
    """Samples that the first frame needs: 0 where it is centred on the first sample, else the window."""
    min_samples: int
    """The shortest waveform that can be framed."""

    def num_frames(self, samples: Tensor | int) -> Tensor | int:
        """Frames of a waveform of that many samples, `min_samples` or more."""
        return 1 + (samples - self.first) // self.hop

    @property
    def first_center(self) -> float:
        """Samples from the beginning to the middle of the first frame."""
        return self.first / 2

    def samples_of(self, frames: int) -> int:
        """The shortest waveform that gives that many frames."""
        return max(self.min_samples, self.first + (frames - 1) * self.hop)


class FrontEnd(SinglePrecision, ABC):
    """Base of every front end. A subclass is one line in `front_ends.py`.

    It computes in float32 whatever precision the model around it has: half precision has neither the range nor, after
    the logarithm, the resolution.
    """

    Config: ClassVar[type[Section]]
    FEATURES: ClassVar[tuple[str, ...]]
    """The names of the features that it gives."""
    framing: Framing

    @abstractmethod
    def num_bins(self, feature: str) -> int:
        """Values of a frame of that feature."""

    @abstractmethod
    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """wavs: (B, T) float32, zeros beyond lengths: (B,) int64 samples, each at least `framing.min_samples`.

        Returns what all its features are made of, (B, F, ...) float32, and the (B,) int64 valid frames. What stands
        in the frames beyond them is up to the subclass.
        """

    @abstractmethod
    def feature(self, spectra: Tensor, feature: str) -> Tensor:
        """spectra: what `forward` returned -> the feature of that name, (B, F, num_bins(feature)) float32."""
