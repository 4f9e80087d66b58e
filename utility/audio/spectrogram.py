"""The spectrogram front end: batched, on the model's device, and blind to padding.

It follows the recipe of the s3prl family (torchaudio's `Spectrogram` with `power=2` and `center=True`) so that
weights trained there see the same numbers: a periodic Hann window centred in `n_fft` points, frames centred at
multiples of the hop, reflection at the ends, HTK mel filters without area normalization, natural logarithm.
What differs is the batch: every utterance is reflected, differentiated and normalized at *its own* ends.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torchaudio.functional import compute_deltas, melscale_fbanks

from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.audio.front_end import Framing, FrontEnd
from mynah.utility.configuration.sections import Section, rules
from mynah.utility.nn.padding import lengths_to_mask

LOG_FLOOR = 1e-10
CMVN_FLOOR = 1e-10
LOG_ROUNDING = 1e-5
"""Deviations of log features below this are rounding: a bin of speech has more than fifty times as much."""
DELTA_WINDOW = 5


class SpectrogramConfig(Section):
    """How waveforms become spectrograms."""

    sample_rate: int = Field(16000, gt=0)
    """Hz."""
    n_fft: int = Field(2046, gt=0)
    """Points of the Fourier transform; gives n_fft // 2 + 1 linear bins."""
    window_ms: float = Field(25.0, gt=0)
    """Length of the Hann window."""
    hop_ms: float = Field(10.0, gt=0)
    """From one frame to the next."""
    n_mels: int = Field(80, gt=0)
    """Mel filters between 0 Hz and half the sample rate."""

    @property
    def window(self) -> int:
        """Window length in samples."""
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop(self) -> int:
        """Hop in samples."""
        return round(self.hop_ms * self.sample_rate / 1000)

    @rules
    def _window_fits(self) -> Iterable[str | None]:
        if self.window < 2:
            yield f"window_ms: must be at least two samples long, got {self.window_ms}"
        if self.hop < 1:
            yield f"hop_ms: must be at least a sample long, got {self.hop_ms}"
        if self.window % 2:
            yield f"window_ms: must give an even number of samples, got {self.window}"
        if self.sample_rate != SAMPLE_RATE:
            yield f"sample_rate: waveforms are brought to {SAMPLE_RATE} Hz, got {self.sample_rate}"
        if self.hop > self.window:
            yield f"hop_ms: must be at most window_ms ({self.window_ms}), or samples between frames are lost"
        if self.n_mels > self.n_fft // 2 + 1:
            yield f"n_mels: must be at most the {self.n_fft // 2 + 1} bins that n_fft gives, got {self.n_mels}"
        if 0 < self.n_fft < self.window:
            yield f"n_fft: must be at least the window ({self.window} samples), got {self.n_fft}"


class Spectrogram(FrontEnd):
    """Power spectrograms of a padded batch, and their mel and linear logarithms.

    `torch.stft` would centre the window of `window` samples in `n_fft` points and multiply the rest by zero; here
    only the `window` samples are cut out and the transform pads them. The power is the same (a shift changes the
    phase alone), a fifth of the samples are read, and the reflection need only reach half a window.
    """

    Config = SpectrogramConfig
    FEATURES = ("mel", "linear")

    def __init__(self, config: SpectrogramConfig):
        super().__init__()
        self.n_fft, self.window_length, self.hop = config.n_fft, config.window, config.hop
        self.reach = self.window_length // 2
        # The shortest utterance that can be reflected at its ends and has a standard deviation.
        self.framing = Framing(hop=config.hop, first=0, min_samples=max(self.reach + 1, config.hop))
        num_bins = config.n_fft // 2 + 1
        self.sizes = {"mel": config.n_mels, "linear": num_bins}
        filters = melscale_fbanks(
            num_bins,
            0.0,
            config.sample_rate / 2,
            config.n_mels,
            config.sample_rate,
            norm=None,
            mel_scale="htk",
        )
        self.register_buffer("hann", torch.hann_window(self.window_length, periodic=True), persistent=False)
        self.register_buffer("mel_filters", filters, persistent=False)

    def num_bins(self, feature: str) -> int:
        return self.sizes[feature]

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """wavs: (B, T) float32, zeros beyond lengths: (B,) int64 samples, each at least `framing.min_samples`.

        Returns the power spectrogram (B, F, n_fft // 2 + 1) float32 with F = 1 + T // hop, and the (B,) int64 valid
        frames. Frames beyond them hold whatever padding gives.
        """
        with torch.autocast(wavs.device.type, enabled=False):
            frames = self._reflect(wavs.float(), lengths).unfold(1, self.window_length, self.hop)
            spectrum = torch.fft.rfft(frames * self.hann, n=self.n_fft)
            power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        return power, self.framing.num_frames(lengths)

    def feature(self, spectra: Tensor, feature: str) -> Tensor:
        return self.log_mel(spectra) if feature == "mel" else self.log_linear(spectra)

    def log_linear(self, power: Tensor) -> Tensor:
        """(B, F, bins) power -> (B, F, bins) log power."""
        return (power + LOG_FLOOR).log_()

    def log_mel(self, power: Tensor) -> Tensor:
        """(B, F, bins) power -> (B, F, n_mels) log mel power."""
        with torch.autocast(power.device.type, enabled=False):
            return (power @ self.mel_filters).add_(LOG_FLOOR).log_()

    def _reflect(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) -> (B, T + 2 * reach): every row mirrored about its first and its own last sample."""
        padded = F.pad(wavs, (0, self.reach))
        offsets = torch.arange(self.reach, device=wavs.device)
        ends = lengths[:, None]
        padded.scatter_(1, ends + offsets, wavs.gather(1, ends - 2 - offsets))
        return torch.cat([wavs[:, 1 : self.reach + 1].flip(1), padded], dim=1)


def add_deltas(x: Tensor, frames: Tensor, order: int) -> Tensor:
    """x: (B, F, D) features, frames: (B,) valid frames -> (B, F, D * (order + 1)), the derivatives appended.

    As `torchaudio.functional.compute_deltas` with a window of 5 and its replication at the ends, done at the end of
    every utterance rather than of the batch.
    """
    if order == 0:
        return x
    last = torch.arange(x.shape[1], device=x.device).minimum(frames[:, None] - 1)
    parts = [x.gather(1, last[:, :, None].expand_as(x))]
    for _ in range(order):
        derivative = compute_deltas(parts[-1].transpose(1, 2), win_length=DELTA_WINDOW).transpose(1, 2)
        parts.append(derivative.gather(1, last[:, :, None].expand_as(derivative)))
    return torch.cat(parts, dim=-1)


def utterance_statistics(x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """x: (B, F, D), frames: (B,) valid frames -> mean and unbiased standard deviation over them, (B, 1, D) each."""
    valid = lengths_to_mask(frames, x.shape[1])[:, :, None]
    count = frames[:, None, None]
    # Counted from the first frame, so that mean and deviation of a bin that never changes (digital silence) are
    # exact: the rounding of one must not be divided by that of the other.
    first = x[:, :1]
    offset = (x - first).masked_fill_(~valid, 0.0)
    mean = offset.sum(1, keepdim=True) / count
    squares = offset.sub_(mean).masked_fill_(~valid, 0.0).square_().sum(1, keepdim=True)
    variance, never_changes = squares / (count - 1).clamp(min=1), squares == 0
    # The root of 0 would have an infinite gradient, and silence a gradient of NaN: it has none.
    return first + mean, variance.masked_fill(never_changes, 1.0).sqrt().masked_fill(never_changes, 0.0)


def utterance_cmvn(x: Tensor, frames: Tensor) -> Tensor:
    """Mean and variance normalization per utterance over its valid frames; padded frames become zero.

    x: (B, F, D) log features, frames: (B,) -> (B, F, D). A bin that does not change becomes zero: the deltas of two
    frames, say, are equal but for their rounding, which differs from machine to machine and must not be scaled up.
    """
    mean, deviation = utterance_statistics(x, frames)
    valid = lengths_to_mask(frames, x.shape[1])[:, :, None]
    return ((x - mean) / (deviation + CMVN_FLOOR)).masked_fill_(~valid | (deviation < LOG_ROUNDING), 0.0)
