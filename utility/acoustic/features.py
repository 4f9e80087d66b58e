"""Input features of the acoustic model: a front end, deltas and CMVN, stacked into positions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.audio.front_end import Framing
from mynah.utility.audio.front_ends import FRONT_ENDS
from mynah.utility.audio.level import scale_to_level
from mynah.utility.audio.spectrogram import CMVN_FLOOR, add_deltas, utterance_cmvn, utterance_statistics
from mynah.utility.configuration.sections import Section, one_of, rules, sections_of
from mynah.utility.nn.padding import zero_padding

FEATURES = tuple(feature for front_end in FRONT_ENDS.values() for feature in front_end.FEATURES)


class FeatureConfig(Section):
    """One feature of the front end, as input or as target."""

    feature: Annotated[str, one_of(FEATURES)] = "mel"
    """One that the front end gives: mel or linear (natural logarithms of power) of spectrogram; of the others their
    own name."""
    num_deltas: int = Field(0, ge=0, le=2)
    """Orders of derivatives appended to the features."""
    cmvn: bool = True
    """Mean and variance normalization per utterance."""


class AcousticFeaturesConfig(sections_of(FRONT_ENDS)):
    """The front end, with a section for the options of each, and what the model sees of it."""

    front_end: Annotated[str, one_of(FRONT_ENDS)] = "spectrogram"
    """spectrogram, or Kaldi's fbank, mfcc or kaldi_spectrogram; computed once for the input and all targets."""
    input: FeatureConfig = Field(default_factory=FeatureConfig)
    level_db: float | None = Field(None, ge=-100, le=0)
    """Decibels of full scale that every waveform's RMS is brought to before anything else (s3prl: -25); None: as it
    is."""

    @rules
    def _front_end_gives_the_input(self) -> Iterable[str | None]:
        yield self.refusal("input.feature", self.input.feature)

    def refusal(self, key: str, feature: str) -> str | None:
        """What is wrong with this feature, or None where the front end gives it."""
        given = FRONT_ENDS[self.front_end].FEATURES
        if feature in given:
            return None
        return f"{key}: the front end {self.front_end} gives {' and '.join(given)}, not {feature}"


@dataclass(frozen=True)
class Positions:
    """How many positions a waveform fills. It is small, so that workers can count without the model."""

    framing: Framing
    frames_per_position: int

    def count(self, samples: Tensor | int) -> Tensor | int:
        """Positions of a waveform of that many samples; frames that do not fill one are left out."""
        return self.framing.num_frames(samples) // self.frames_per_position

    @property
    def samples_per_position(self) -> int:
        return self.frames_per_position * self.framing.hop

    @property
    def first_center(self) -> float:
        """Samples from the beginning to the middle of the first position's frames."""
        return self.framing.first_center + (self.frames_per_position - 1) / 2 * self.framing.hop

    @property
    def min_samples(self) -> int:
        """The shortest waveform that fills one position."""
        return self.framing.samples_of(self.frames_per_position)


class StackedFeatures(nn.Module):
    """Waveforms -> features of S frames a position, of any feature that the front end gives.

    forward's spectra are computed once; `stacked` and `at` make features of them.
    """

    def __init__(self, config: AcousticFeaturesConfig, frames_per_position: int):
        super().__init__()
        self.front_end = FRONT_ENDS[config.front_end](getattr(config, config.front_end))
        self.positions = Positions(self.front_end.framing, frames_per_position)
        self.level_db = config.level_db

    def num_bins(self, feature: FeatureConfig) -> int:
        """Values of a frame, deltas included."""
        return self.front_end.num_bins(feature.feature) * (feature.num_deltas + 1)

    def size(self, feature: FeatureConfig) -> int:
        """Values of a position."""
        return self.num_bins(feature) * self.positions.frames_per_position

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """wavs: (B, T), lengths: (B,) samples -> the front end's spectra (B, F, ...) and the (B,) valid frames."""
        if self.level_db is not None:
            wavs = scale_to_level(wavs, lengths, self.level_db)
        return self.front_end(wavs, lengths)

    def stacked(self, spectra: Tensor, frames: Tensor, feature: FeatureConfig) -> Tensor:
        """spectra: (B, F, ...), frames: (B,) -> the feature (B, N, S, num_bins), padded frames zero."""
        x = self._unnormalized(spectra, frames, feature)
        return self._stack(utterance_cmvn(x, frames) if feature.cmvn else zero_padding(x, frames))

    def at(self, spectra: Tensor, frames: Tensor, feature: FeatureConfig, chosen: Tensor) -> Tensor:
        """The feature at the positions that chosen: (B, N) bool names: (M, size); the rest is never normalized."""
        x = self._unnormalized(spectra, frames, feature)
        values = self._stack(x)[chosen]
        if feature.cmvn:
            mean, deviation = utterance_statistics(x, frames)
            row = chosen.nonzero()[:, 0]
            values = values.sub_(mean[row]).div_(deviation[row] + CMVN_FLOOR)
        return values.flatten(1)

    def _unnormalized(self, spectra: Tensor, frames: Tensor, feature: FeatureConfig) -> Tensor:
        with torch.autocast(spectra.device.type, enabled=False):
            return add_deltas(self.front_end.feature(spectra, feature.feature), frames, feature.num_deltas)

    def _stack(self, x: Tensor) -> Tensor:
        """(B, F, bins) frames -> (B, N, S, bins) positions of S frames; frames that do not fill one are dropped."""
        stacking = self.positions.frames_per_position
        num_positions = x.shape[1] // stacking
        return x[:, : num_positions * stacking].unflatten(1, (num_positions, stacking))
