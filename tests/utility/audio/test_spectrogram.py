"""The spectrogram front end against torchaudio, librosa and brute force, one utterance at a time."""

import librosa
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from torch import Tensor

from mynah.utility.audio.spectrogram import (
    Spectrogram,
    SpectrogramConfig,
    add_deltas,
    utterance_cmvn,
    utterance_statistics,
)
from mynah.utility.configuration.problems import validate
from mynah.utility.nn.padding import pad_signals

LENGTHS = [16000, 4801, 12345, 2400]


def voice(samples: int, seed: int) -> Tensor:
    """A gliding, pulsing harmonic tone over faint noise: (samples,) at 16 kHz, well above the log floor."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16000
    phase = 2 * torch.pi * torch.cumsum(110 + 15 * seed + 20 * torch.sin(9 * time), 0) / 16000
    tone = sum(torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 25))
    return 0.1 * tone * (0.6 + 0.4 * torch.sin(19 * time)) + 0.003 * torch.randn(samples, generator=generator)


@pytest.fixture(scope="module")
def signals() -> list[Tensor]:
    return [voice(samples, seed) for seed, samples in enumerate(LENGTHS)]


def power_of_each(signals: list[Tensor], config: SpectrogramConfig | None = None) -> list[Tensor]:
    """The front end's valid frames, the signals given as one batch."""
    power, frames = Spectrogram(config or SpectrogramConfig())(*pad_signals(signals))
    assert frames.dtype == torch.int64
    return [row[:count] for row, count in zip(power, frames, strict=True)]


def assert_close_to_peak(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Errors of a Fourier transform are relative to the frame's strongest bin, not to every bin."""
    assert actual.shape == expected.shape
    peak = expected.amax(dim=-1, keepdim=True)
    assert ((actual - expected).abs() / peak).max() < tolerance


@pytest.mark.parametrize(
    "config",
    [
        SpectrogramConfig(),
        SpectrogramConfig(n_fft=400),
        SpectrogramConfig(n_fft=512, window_ms=20.0, hop_ms=12.5),
        SpectrogramConfig(n_fft=801, window_ms=30.0),
    ],
    ids=lambda config: f"{config.n_fft}-{config.window_ms}-{config.hop_ms}",
)
def test_power_equals_torchaudio_per_utterance(signals, config):
    reference = torchaudio.transforms.Spectrogram(
        n_fft=config.n_fft,
        win_length=config.window,
        hop_length=config.hop,
        center=True,
        pad_mode="reflect",
        power=2,
    )
    for actual, signal in zip(power_of_each(signals, config), signals, strict=True):
        expected = reference(signal).T
        # With an odd n_fft and a whole number of hops torchaudio leaves the last frame out.
        assert len(expected) == len(actual) - (config.n_fft % 2 and len(signal) % config.hop == 0)
        assert_close_to_peak(actual[: len(expected)], expected, 1e-5)


def test_power_equals_librosa_per_utterance(signals):
    for actual, signal in zip(power_of_each(signals), signals, strict=True):
        spectrum = librosa.stft(
            signal.numpy(), n_fft=2046, hop_length=160, win_length=400, window="hann", pad_mode="reflect"
        )
        assert_close_to_peak(actual, torch.from_numpy(np.abs(spectrum) ** 2).T, 1e-5)


def test_an_utterance_has_one_frame_a_hop_and_one_more():
    for samples in (201, 319, 320, 321, 16000):
        (power,) = power_of_each([voice(samples, 0)])
        assert power.shape == (1 + samples // 160, 1024)


def test_log_mel_equals_librosa_htk_filters_without_norm(signals):
    filters = librosa.filters.mel(sr=16000, n_fft=2046, n_mels=80, fmin=0.0, fmax=8000.0, htk=True, norm=None)
    for power, signal in zip(power_of_each(signals), signals, strict=True):
        spectrum = librosa.stft(
            signal.numpy(), n_fft=2046, hop_length=160, win_length=400, window="hann", pad_mode="reflect"
        )
        expected = np.log(filters @ np.abs(spectrum) ** 2 + 1e-10).T
        np.testing.assert_allclose(Spectrogram(SpectrogramConfig()).log_mel(power), expected, atol=1e-4)


def test_log_mel_equals_torchaudio_mel_spectrogram(signals):
    reference = torchaudio.transforms.MelSpectrogram(
        sample_rate=16000, n_fft=2046, win_length=400, hop_length=160, n_mels=80, norm=None, mel_scale="htk"
    )
    for power, signal in zip(power_of_each(signals), signals, strict=True):
        expected = (reference(signal).T + 1e-10).log()
        torch.testing.assert_close(Spectrogram(SpectrogramConfig()).log_mel(power), expected, atol=1e-4, rtol=0)


def test_log_linear_is_the_natural_logarithm_above_a_floor(signals):
    power = power_of_each(signals)[0]
    expected = np.log(power.double().numpy() + 1e-10)
    np.testing.assert_allclose(Spectrogram(SpectrogramConfig()).log_linear(power), expected, atol=1e-5)
    silence = Spectrogram(SpectrogramConfig()).log_linear(torch.zeros(1, 2, 1024))
    torch.testing.assert_close(silence, torch.full_like(silence, np.log(1e-10)))


def test_power_is_float32_under_autocast(signals):
    expected = power_of_each(signals)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        front_end = Spectrogram(SpectrogramConfig())
        power, _ = front_end(*pad_signals(signals[:1]))
        mel = front_end.log_mel(power)
    assert power.dtype == mel.dtype == torch.float32
    torch.testing.assert_close(power[0], expected)
    torch.testing.assert_close(mel[0], front_end.log_mel(expected))


@pytest.mark.parametrize("order", [1, 2])
def test_deltas_equal_torchaudio_per_utterance(signals, order):
    rows = [power.log() for power in power_of_each(signals)]
    frames = torch.tensor([len(row) for row in rows])
    batch = torch.full((len(rows), int(frames.max()) + 3, 1024), 7.0)
    for index, row in enumerate(rows):
        batch[index, : len(row)] = row
    actual = add_deltas(batch, frames, order)
    for index, row in enumerate(rows):
        expected = [row.T]
        for _ in range(order):
            expected.append(torchaudio.functional.compute_deltas(expected[-1], win_length=5))
        torch.testing.assert_close(
            actual[index, : len(row)], torch.cat(expected).T, atol=1e-5, rtol=1e-5, msg=f"utterance {index}"
        )


def test_no_deltas_leave_the_features_as_they_are():
    x = torch.randn(2, 5, 3)
    assert torch.equal(add_deltas(x, torch.tensor([5, 2]), 0), x)


def test_cmvn_equals_mean_and_unbiased_deviation_of_each_utterance():
    generator = torch.Generator().manual_seed(0)
    x = 5 * torch.randn(3, 40, 6, generator=generator) - 20
    frames = torch.tensor([40, 17, 2])
    actual = utterance_cmvn(x, frames)
    for index, count in enumerate(frames):
        row = x[index, :count].double()
        expected = (row - row.mean(0)) / (row.std(0, unbiased=True) + 1e-10)
        torch.testing.assert_close(actual[index, :count].double(), expected, atol=1e-5, rtol=0)
        assert torch.all(actual[index, count:] == 0)


def test_cmvn_of_what_never_changes_is_zero_at_any_padding():
    """Rounding of the mean must not be blown up to ones by a deviation that is rounding too."""
    level = torch.tensor([-23.0258509, -15.942385, 0.1])
    for count in range(1, 400, 7):
        for padding in (0, 5, 120):
            x = torch.randn(1, count + padding, 3)
            x[:, :count] = level
            assert torch.all(utterance_cmvn(x, torch.tensor([count])) == 0), (count, padding)


def features_of_each(wavs: Tensor, lengths: Tensor, feature: str) -> list[Tensor]:
    front_end = Spectrogram(SpectrogramConfig())
    power, frames = front_end(wavs, lengths)
    log = {"mel": front_end.log_mel, "linear": front_end.log_linear}[feature](power)
    normalized = utterance_cmvn(add_deltas(log, frames, 2), frames)
    return [row[:count] for row, count in zip(normalized, frames, strict=True)]


def test_rounding_is_not_scaled_up():
    """The deltas of two frames are the same number by arithmetic; another machine's last bit must not show."""
    frames, level = torch.tensor([2]), torch.tensor([0.3, -2.1, 7.7])
    x = torch.stack([level, torch.nextafter(level, level + 1)])[None]
    assert torch.all(utterance_cmvn(x, frames) == 0)
    expected = torch.tensor([-1.0, 1.0])[:, None].expand(2, 3) / 2**0.5
    changed = utterance_cmvn(torch.stack([level, level + 0.01])[None], frames)
    torch.testing.assert_close(changed[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("feature", ["mel", "linear"])
def test_padding_never_changes_a_frame(signals, feature):
    """Alone, in a batch, with padding to spare, and whatever stands in the padding."""
    signals = [*signals, voice(201, 5), torch.zeros(15746)]
    wavs, lengths = pad_signals(signals)
    batched = features_of_each(wavs, lengths, feature)
    wider = features_of_each(torch.nn.functional.pad(wavs, (0, 7777)), lengths, feature)
    for index, signal in enumerate(signals):
        (alone,) = features_of_each(*pad_signals([signal]), feature)
        assert alone.shape[0] == 1 + len(signal) // 160
        # Two frames may differ by so little that the rounding of their logarithms shows when it is divided by that.
        tolerance = 1e-5 if alone.shape[0] > 2 else 1e-3
        torch.testing.assert_close(batched[index], alone, atol=tolerance, rtol=0, msg=f"utterance {index}")
        torch.testing.assert_close(wider[index], alone, atol=tolerance, rtol=0, msg=f"utterance {index}")


def test_the_shortest_utterance_is_reflected_like_torchaudio(signals):
    front_end = Spectrogram(SpectrogramConfig(n_fft=400))
    shortest = voice(front_end.framing.min_samples, 3)
    reference = torchaudio.transforms.Spectrogram(n_fft=400, win_length=400, hop_length=160, power=2)
    power, frames = front_end(*pad_signals([signals[0], shortest]))
    assert_close_to_peak(power[1, : frames[1]], reference(shortest).T, 1e-5)


def test_real_speech_equals_librosa(shared_data):
    path = min((shared_data / "LibriSpeech").rglob("*.flac"), key=lambda file: file.stat().st_size)
    samples, _ = soundfile.read(path, dtype="float32")
    (power,) = power_of_each([torch.from_numpy(samples)])
    spectrum = librosa.stft(samples, n_fft=2046, hop_length=160, win_length=400, pad_mode="reflect")
    assert_close_to_peak(power, torch.from_numpy(np.abs(spectrum) ** 2).T, 1e-5)
    filters = librosa.filters.mel(sr=16000, n_fft=2046, n_mels=80, htk=True, norm=None)
    expected = np.log(filters @ np.abs(spectrum) ** 2 + 1e-10).T
    np.testing.assert_allclose(Spectrogram(SpectrogramConfig()).log_mel(power), expected, atol=1e-3)


def test_impossible_spectrograms_are_named():
    assert not validate(SpectrogramConfig, {})[1]
    assert [key for key, _ in validate(SpectrogramConfig, {"hop_ms": 0.0, "n_mels": -1})[1]] == ["hop_ms", "n_mels"]
    short = {"hop_ms": 0.03, "window_ms": 0.03}
    assert {key for key, _ in validate(SpectrogramConfig, short)[1]} == {"hop_ms", "window_ms"}
    assert [key for key, _ in validate(SpectrogramConfig, {"n_fft": 256})[1]] == ["n_fft"]


def test_a_sample_rate_other_than_that_of_the_waveforms_is_refused():
    assert validate(SpectrogramConfig, {"sample_rate": 8000, "n_fft": 2046})[1] == [
        ("sample_rate", "waveforms are brought to 16000 Hz, got 8000")
    ]


def test_gradients_are_those_of_finite_differences_and_zero_where_nothing_changes():
    """Of three bins: one that changes, one that nearly does not, one of digital silence."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 6, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1e-3, 0.0])
    frames, weights = torch.tensor([5]), torch.randn(1, 6, 3, generator=generator, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        mean, deviation = utterance_statistics(x, frames)
        return (weights * (mean + 3 * deviation)).sum() + (weights * utterance_cmvn(x, frames)).sum()

    [gradient] = torch.autograd.grad(loss(x.requires_grad_()), x)
    for index in np.ndindex(1, 6, 2):
        step = torch.zeros_like(x)
        step[index] = 1e-7
        with torch.no_grad():
            expected = (loss(x + step) - loss(x - step)) / 2e-7
        assert gradient[index].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6), index
    assert gradient[0, :, 2].isfinite().all()
    silence = torch.zeros(1, 6, 3, requires_grad=True)
    _, deviation = utterance_statistics(silence, frames)
    [gradient] = torch.autograd.grad(deviation.sum() + utterance_cmvn(silence, frames).sum(), silence)
    assert torch.all(gradient == 0) and torch.all(deviation == 0)
