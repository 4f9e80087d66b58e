"""Input features of the acoustic model: a front end, deltas and CMVN, stacked into positions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from mynah.utility.acoustic.corpus_statistics import CorpusStatistics
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.audio.front_end import Framing
from mynah.utility.audio.front_ends import FRONT_ENDS
from mynah.utility.audio.level import scale_to_level
from mynah.utility.audio.spectrogram import CMVN_FLOOR, add_deltas, utterance_cmvn, utterance_statistics
from mynah.utility.configuration.sections import Section, one_of, rules, sections_of
from mynah.utility.nn.padding import zero_padding

FEATURES = tuple(feature for front_end in FRONT_ENDS.values() for feature in front_end.FEATURES)
NORMALIZATIONS = ("utterance", "corpus", "none")


def _normalization_of(value: Any) -> Any:
    """true and false, which configurations and checkpoints of earlier versions have, by their names."""
    if isinstance(value, bool):
        value = str(value).lower()
    return {"true": "utterance", "false": "none"}.get(value, value) if isinstance(value, str) else value


class FeatureConfig(Section):
    """One feature of the front end, as input or as target."""

    feature: Annotated[str, one_of(FEATURES)] = "mel"
    """One that the front end gives: mel or linear (natural logarithms of power) of spectrogram; of the others their
    own name."""
    num_deltas: int = Field(0, ge=0, le=2)
    """Orders of derivatives appended to the features."""
    cmvn: Annotated[str, BeforeValidator(_normalization_of), one_of(NORMALIZATIONS)] = "utterance"
    """Mean and variance normalization: over the utterance, which takes away what speakers and channels differ in;
    over the corpus, by statistics that are measured before the first step and kept in the checkpoint; or none."""


class AcousticFeaturesConfig(sections_of(FRONT_ENDS)):
    """The front end, with a section for the options of each, and what the model sees of it."""

    front_end: Annotated[str, one_of(FRONT_ENDS)] = "spectrogram"
    """spectrogram, or Kaldi's fbank, mfcc or kaldi_spectrogram; computed once for the input and all targets."""
    input: FeatureConfig = Field(default_factory=FeatureConfig)
    level_db: float | None = Field(None, ge=-100, le=0)
    """Decibels of full scale that every waveform's RMS is brought to before anything else (s3prl: -25); None: as it
    is."""
    statistics_hours: float = Field(2.0, gt=0)
    """Speech from which the statistics of `cmvn: corpus` are measured: that much of the training crops, at random."""

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


@dataclass
class Heard:
    """A padded batch of waveforms, and what the front end made of it."""

    wavs: Tensor
    """(B, T) float32, zeros beyond lengths."""
    lengths: Tensor
    """(B,) samples."""
    spectra: Tensor
    """(B, F, ...) float32, of which every feature is made."""
    frames: Tensor
    """(B,) valid frames."""


class StackedFeatures(nn.Module):
    """Waveforms -> features of S frames a position, of any feature that the front end gives.

    forward's spectra are computed once; `stacked` and `at` make features of them. A feature that is normalized over
    the corpus is declared first, so that there is a place for its statistics, and measured by `fit`.
    """

    def __init__(self, config: AcousticFeaturesConfig, frames_per_position: int):
        super().__init__()
        self.statistics_hours = config.statistics_hours
        self.front_end = FRONT_ENDS[config.front_end](getattr(config, config.front_end))
        self.positions = Positions(self.front_end.framing, frames_per_position)
        self.level_db = config.level_db
        self.statistics = nn.ModuleDict()
        self.declared: dict[str, FeatureConfig] = {}

    def declare(self, *features: FeatureConfig) -> None:
        """Make room for what the corpus will say of these."""
        for feature in features:
            if feature.cmvn == "corpus" and statistics_name(feature) not in self.statistics:
                self.statistics[statistics_name(feature)] = CorpusStatistics(self.num_bins(feature))
                self.declared[statistics_name(feature)] = feature

    def measured(self, *names: str) -> None:
        """`fit` leaves the statistics of these as they are: another run's, loaded with its weights."""
        for name in names:
            self.declared.pop(name, None)

    def fit(self, waveforms: Callable[[], Iterable[Tensor]]) -> None:
        """Measure the statistics of what is declared.

        waveforms() -> (T,) float32 crops in random order, each read when it is asked for.
        """
        if not self.declared:
            return
        budget = self.statistics_hours * 3600 * SAMPLE_RATE
        for wav in waveforms():
            heard = self(wav[None], torch.tensor([len(wav)]))
            for name, feature in self.declared.items():
                self.statistics[name].add(self._unnormalized(heard, feature)[0, : heard.frames[0]])
            budget -= len(wav)
            if budget <= 0:
                break
        for name in self.declared:
            self.statistics[name].finish()

    def num_bins(self, feature: FeatureConfig) -> int:
        """Values of a frame, deltas included."""
        return self.front_end.num_bins(feature.feature) * (feature.num_deltas + 1)

    def size(self, feature: FeatureConfig) -> int:
        """Values of a position."""
        return self.num_bins(feature) * self.positions.frames_per_position

    def forward(self, wavs: Tensor, lengths: Tensor) -> Heard:
        """wavs: (B, T) float32 at 16 kHz, zeros beyond lengths: (B,) samples."""
        levelled = wavs if self.level_db is None else scale_to_level(wavs, lengths, self.level_db)
        return Heard(wavs, lengths, *self.front_end(levelled, lengths))

    def stacked(self, heard: Heard, feature: FeatureConfig) -> Tensor:
        """The feature at all positions, (B, N, S, num_bins), padded frames zero."""
        x = self._unnormalized(heard, feature)
        if feature.cmvn == "utterance":
            return self._stack(utterance_cmvn(x, heard.frames))
        if feature.cmvn == "corpus":
            x = self.statistics[statistics_name(feature)](x)
        return self._stack(zero_padding(x, heard.frames))

    def at(self, heard: Heard, feature: FeatureConfig, chosen: Tensor) -> Tensor:
        """The feature at the positions chosen: (M,) int64 of the batch's B * N, row after row: (M, size); the rest is
        never normalized."""
        x = self._unnormalized(heard, feature)
        stacked = self._stack(x)
        values = stacked.flatten(0, 1)[chosen]
        if feature.cmvn == "utterance":
            mean, deviation = utterance_statistics(x, heard.frames)
            row = chosen // stacked.shape[1]
            values = values.sub_(mean[row]).div_(deviation[row] + CMVN_FLOOR)
        elif feature.cmvn == "corpus":
            values = self.statistics[statistics_name(feature)](values)
        return values.flatten(1)

    def _unnormalized(self, heard: Heard, feature: FeatureConfig) -> Tensor:
        with torch.autocast(heard.spectra.device.type, enabled=False):
            values = self.front_end.feature(heard.spectra, feature.feature)
            return add_deltas(values, heard.frames, feature.num_deltas)

    def _stack(self, x: Tensor) -> Tensor:
        """(B, F, bins) frames -> (B, N, S, bins) positions of S frames; frames that do not fill one are dropped."""
        stacking = self.positions.frames_per_position
        num_positions = x.shape[1] // stacking
        return x[:, : num_positions * stacking].unflatten(1, (num_positions, stacking))


def statistics_name(feature: FeatureConfig) -> str:
    """That of a feature's statistics, a key of the checkpoint."""
    return f"{feature.feature}_{feature.num_deltas}"
