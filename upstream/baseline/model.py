"""The features themselves: Kaldi's, as torchaudio computes them, and the front end's log spectrograms.

Every extractor maps a padded batch (B, T) and its lengths (B,) to features (B, F, size) and frames (B,).
"""

from collections.abc import Iterable

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.compliance import kaldi

from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.audio.spectrogram import Spectrogram, SpectrogramConfig
from mynah.utility.configuration.sections import Section, rules

MAX_DELTAS = 2
MIN_MEL_BINS = 4
"""The fewest that Kaldi takes."""


class KaldiConfig(Section):
    """Frames as Kaldi cuts them: only those that lie whole in the utterance (`snip_edges`), and no dither."""

    window_ms: float = 25.0
    """Length of the window."""
    hop_ms: float = 10.0
    """From one frame to the next."""
    num_deltas: int = Field(2, ge=0, le=MAX_DELTAS)
    """Orders of derivatives appended to the features."""
    cmvn: bool = True
    """Mean and variance normalization per utterance."""

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


class KaldiSpectrogramConfig(KaldiConfig):
    """Kaldi's log power spectrogram, with the log energy in place of bin 0."""

    num_deltas: int = Field(0, ge=0, le=MAX_DELTAS)
    """Orders of derivatives appended to the features."""


class LogSpectrogramConfig(SpectrogramConfig):
    """The front end of the pretrained models, as features of its own."""

    num_deltas: int = Field(0, ge=0, le=MAX_DELTAS)
    """Orders of derivatives appended to the features."""
    cmvn: bool = True
    """Mean and variance normalization per utterance."""


class KaldiFeatures(nn.Module):
    """`torchaudio.compliance.kaldi` over the utterances of a batch.

    The library takes one waveform at a time. One call on all utterances laid end to end gives the same
    frames, but was slower than the loop on a CPU.
    """

    size: int

    def __init__(self, config: KaldiConfig):
        super().__init__()
        self.window, self.hop, self.min_samples = config.window, config.hop, config.window
        self.framing = {
            "sample_frequency": float(SAMPLE_RATE),
            "frame_length": config.window_ms,
            "frame_shift": config.hop_ms,
            "dither": 0.0,
            "snip_edges": True,
        }

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """wavs: (B, T) float32, lengths: (B,) samples, each at least `min_samples` -> (B, F, size), (B,)."""
        rows = [self.extract(wav[None, :samples]) for wav, samples in zip(wavs, lengths.tolist(), strict=True)]
        return pad_sequence(rows, batch_first=True), 1 + (lengths - self.window) // self.hop

    def extract(self, wav: Tensor) -> Tensor:
        """wav: (1, T) -> (F, size), as Kaldi computes it for one utterance."""
        raise NotImplementedError


class Fbank(KaldiFeatures):
    def __init__(self, config: FbankConfig):
        super().__init__(config)
        self.size = config.num_mel_bins

    def extract(self, wav: Tensor) -> Tensor:
        return kaldi.fbank(wav, num_mel_bins=self.size, **self.framing)


class Mfcc(KaldiFeatures):
    def __init__(self, config: MfccConfig):
        super().__init__(config)
        self.size, self.num_mel_bins = config.num_ceps, config.num_mel_bins

    def extract(self, wav: Tensor) -> Tensor:
        return kaldi.mfcc(wav, num_ceps=self.size, num_mel_bins=self.num_mel_bins, **self.framing)


class KaldiSpectrogram(KaldiFeatures):
    def __init__(self, config: KaldiSpectrogramConfig):
        super().__init__(config)
        self.size = config.num_fft_bins

    def extract(self, wav: Tensor) -> Tensor:
        return kaldi.spectrogram(wav, **self.framing)


class LogLinear(nn.Module):
    """Log power spectrogram of the front end."""

    def __init__(self, config: LogSpectrogramConfig):
        super().__init__()
        self.spectrogram = Spectrogram(config)
        self.size, self.hop = self.spectrogram.num_bins, self.spectrogram.hop
        self.min_samples = self.spectrogram.min_samples

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """wavs: (B, T) float32, lengths: (B,) samples, each at least `min_samples` -> (B, F, size), (B,)."""
        power, frames = self.spectrogram(wavs, lengths)
        return self.logarithm(power), frames

    def logarithm(self, power: Tensor) -> Tensor:
        return self.spectrogram.log_linear(power)


class LogMel(LogLinear):
    """Log mel spectrogram of the front end."""

    def __init__(self, config: LogSpectrogramConfig):
        super().__init__(config)
        self.size = self.spectrogram.num_mels

    def logarithm(self, power: Tensor) -> Tensor:
        return self.spectrogram.log_mel(power)


EXTRACTORS: dict[str, tuple[type, type[nn.Module]]] = {
    "fbank": (FbankConfig, Fbank),
    "mfcc": (MfccConfig, Mfcc),
    "spectrogram": (KaldiSpectrogramConfig, KaldiSpectrogram),
    "mel": (LogSpectrogramConfig, LogMel),
    "linear": (LogSpectrogramConfig, LogLinear),
}
"""Name of the baseline -> its configuration and its extractor."""
