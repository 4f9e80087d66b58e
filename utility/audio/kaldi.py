"""Kaldi's features, as torchaudio computes them, as front ends."""

from abc import abstractmethod
from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchaudio.compliance import kaldi

from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.audio.front_end import Framing, FrontEnd
from mynah.utility.configuration.sections import Section, rules

MIN_MEL_BINS = 4
"""The fewest that Kaldi takes."""


class KaldiConfig(Section):
    """Frames as Kaldi cuts them: only those that lie whole in the utterance (`snip_edges`), and no dither."""

    window_ms: float = 25.0
    """Length of the window."""
    hop_ms: float = 10.0
    """From one frame to the next."""

    @property
    def window(self) -> int:
        """Window length in samples, rounded down as Kaldi does."""
        return int(SAMPLE_RATE * self.window_ms * 0.001)

    @property
    def hop(self) -> int:
        """Hop in samples."""
        return int(SAMPLE_RATE * self.hop_ms * 0.001)

    @property
    def num_fft_bins(self) -> int:
        """Bins of the Fourier transform, whose points are the window's rounded up to a power of two."""
        return (1 << (self.window - 1).bit_length()) // 2 + 1

    @rules
    def _frames_have_samples(self) -> Iterable[str | None]:
        if self.window < 2:
            yield f"window_ms: must be at least two samples long, got {self.window_ms}"
        if self.hop < 1:
            yield f"hop_ms: must be at least a sample long, got {self.hop_ms}"


class FbankConfig(KaldiConfig):
    """Kaldi's log mel filter bank energies."""

    num_mel_bins: int = Field(80, ge=MIN_MEL_BINS)
    """Mel filters from 20 Hz to half the sample rate."""


class MfccConfig(KaldiConfig):
    """Kaldi's mel-frequency cepstral coefficients."""

    num_mel_bins: int = Field(23, ge=MIN_MEL_BINS)
    """Mel filters that the cepstrum is taken of."""
    num_ceps: int = Field(13, ge=1)
    """Coefficients kept, the zeroth included."""

    @rules
    def _filters_suffice(self) -> Iterable[str | None]:
        if self.num_ceps > self.num_mel_bins:
            yield f"num_ceps: expected from 1 to {self.num_mel_bins}, got {self.num_ceps}"


class KaldiFeatures(FrontEnd):
    """`torchaudio.compliance.kaldi` over the utterances of a batch. It gives one feature, of its own name.

    The library takes one waveform at a time. One call on all utterances laid end to end gives the same
    frames, but was slower than the loop on a CPU.
    """

    Config = KaldiConfig
    size: int

    def __init__(self, config: KaldiConfig):
        super().__init__()
        self.framing = Framing(hop=config.hop, first=config.window, min_samples=config.window)
        self.options = {
            "sample_frequency": float(SAMPLE_RATE),
            "frame_length": config.window_ms,
            "frame_shift": config.hop_ms,
            "dither": 0.0,
            "snip_edges": True,
        }

    def num_bins(self, feature: str) -> int:
        return self.size

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """wavs: (B, T) float32, lengths: (B,) samples, each at least the window -> (B, F, size), (B,)."""
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = wavs.float()
            rows = [self.extract(wav[None, :samples]) for wav, samples in zip(wavs, lengths.tolist(), strict=True)]
        return pad_sequence(rows, batch_first=True), self.framing.num_frames(lengths)

    def feature(self, spectra: Tensor, feature: str) -> Tensor:
        return spectra

    @abstractmethod
    def extract(self, wav: Tensor) -> Tensor:
        """wav: (1, T) -> (F, size), as Kaldi computes it for one utterance."""


class Fbank(KaldiFeatures):
    Config = FbankConfig
    FEATURES = ("fbank",)

    def __init__(self, config: FbankConfig):
        super().__init__(config)
        self.size = config.num_mel_bins

    def extract(self, wav: Tensor) -> Tensor:
        return kaldi.fbank(wav, num_mel_bins=self.size, **self.options)


class Mfcc(KaldiFeatures):
    Config = MfccConfig
    FEATURES = ("mfcc",)

    def __init__(self, config: MfccConfig):
        super().__init__(config)
        self.size, self.num_mel_bins = config.num_ceps, config.num_mel_bins

    def extract(self, wav: Tensor) -> Tensor:
        return kaldi.mfcc(wav, num_ceps=self.size, num_mel_bins=self.num_mel_bins, **self.options)


class KaldiSpectrogram(KaldiFeatures):
    """Log power, with the log energy in place of bin 0."""

    FEATURES = ("kaldi_spectrogram",)

    def __init__(self, config: KaldiConfig):
        super().__init__(config)
        self.size = config.num_fft_bins

    def extract(self, wav: Tensor) -> Tensor:
        return kaldi.spectrogram(wav, **self.options)
