"""The baselines against torchaudio's Kaldi features and an independent CMVN, one utterance at a time."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from torch import Tensor
from torchaudio.compliance import kaldi

from mynah.upstream.baseline import hubconf
from mynah.utility.errors import UserError

NAMES = ["fbank", "mfcc", "spectrogram", "mel", "linear"]
SIZES = {"fbank": 240, "mfcc": 39, "spectrogram": 257, "mel": 80, "linear": 1024}
KALDI = {
    "fbank": (lambda wav: kaldi.fbank(wav, num_mel_bins=80), 2),
    "mfcc": (lambda wav: kaldi.mfcc(wav, num_ceps=13), 2),
    "spectrogram": (kaldi.spectrogram, 0),
}


def voice(samples: int, seed: int) -> Tensor:
    """A gliding harmonic tone over noise, as real speech in having strong and weak bands: (samples,)."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16000
    phase = 2 * torch.pi * torch.cumsum(110 + 20 * seed + 20 * torch.sin(9 * time), 0) / 16000
    tone = sum(torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 20))
    return 0.1 * tone * (0.6 + 0.4 * torch.sin(19 * time)) + 0.01 * torch.randn(samples, generator=generator)


@pytest.fixture(scope="module")
def signals() -> list[Tensor]:
    return [voice(samples, seed) for seed, samples in enumerate([9000, 16000, 719, 12345])]


def build(name: str, **overrides):
    return getattr(hubconf, name)(**overrides).eval()


def with_deltas(features: Tensor, order: int) -> Tensor:
    """(F, D) -> (F, D * (order + 1)) by torchaudio."""
    parts = [features.T]
    for _ in range(order):
        parts.append(torchaudio.functional.compute_deltas(parts[-1], win_length=5))
    return torch.cat(parts).T


def normalized(features: Tensor) -> Tensor:
    """CMVN in double precision by numpy."""
    values = features.double().numpy()
    return torch.from_numpy((values - values.mean(0)) / (values.std(0, ddof=1) + 1e-10)).float()


@pytest.mark.parametrize("name", KALDI)
def test_kaldi_features_equal_torchaudio_per_utterance(signals, name):
    compute, order = KALDI[name]
    outputs = build(name)(signals)
    for index, signal in enumerate(signals):
        expected = normalized(with_deltas(compute(signal[None]), order))
        assert outputs["lengths"][index] == len(expected) == 1 + (len(signal) - 400) // 160
        actual = outputs["last_hidden_state"][index, : len(expected)]
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", KALDI)
def test_without_cmvn_and_deltas_features_are_exactly_kaldis(signals, name):
    outputs = build(name, cmvn=False, num_deltas=0)(signals)["last_hidden_state"]
    for row, signal in zip(outputs, signals, strict=True):
        expected = KALDI[name][0](signal[None])
        assert torch.equal(row[: len(expected)], expected)


def test_kaldi_features_of_real_speech_equal_torchaudio(shared_data):
    path = min((shared_data / "LibriSpeech").rglob("*.flac"), key=lambda file: file.stat().st_size)
    signal = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    for name, (compute, order) in KALDI.items():
        expected = normalized(with_deltas(compute(signal[None]), order))
        torch.testing.assert_close(build(name)([signal])["last_hidden_state"][0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("linear", torchaudio.transforms.Spectrogram(2046, 400, 160)),
        ("mel", torchaudio.transforms.MelSpectrogram(16000, 2046, 400, 160, n_mels=80)),
    ],
)
def test_log_spectrograms_equal_torchaudio_per_utterance(signals, name, reference):
    signals = [signal for signal in signals if len(signal) > 1023]  # the reference reflects that far
    outputs = build(name)(signals)
    for index, signal in enumerate(signals):
        expected = normalized((reference(signal).T + 1e-10).log())
        assert outputs["lengths"][index] == len(expected)
        # The logarithm makes much of the rounding of weak bins.
        difference = (outputs["last_hidden_state"][index, : len(expected)] - expected).abs()
        assert difference.mean() < 1e-5
        assert difference.max() < 5e-3


@pytest.mark.parametrize("name", NAMES)
def test_an_utterance_has_the_same_features_alone_and_in_any_batch(signals, name):
    expert = build(name)
    shortest, silence = voice(expert.min_samples, 9), torch.zeros(15746)
    batch = [*signals, shortest, silence, voice(40000, 7)]
    together = expert(batch)
    for index, signal in enumerate(batch):
        alone = expert([signal])["last_hidden_state"][0]
        assert together["lengths"][index] == len(alone) > 0
        row = together["last_hidden_state"][index]
        # CMVN divides the rounding of the logarithms by the deviation, next to nothing in the shortest's two frames.
        tolerance = 1e-3 if signal is shortest else 1e-5
        torch.testing.assert_close(row[: len(alone)], alone, atol=tolerance, rtol=0, msg=f"signal {index}")
        assert torch.all(row[len(alone) :] == 0)


@pytest.mark.parametrize("name", NAMES)
def test_contract(signals, name):
    expert = build(name)
    outputs = expert(signals)
    assert set(outputs) == {"hidden_states", "last_hidden_state", "lengths"}
    assert len(outputs["hidden_states"]) == expert.num_hidden_states == 1
    assert outputs["hidden_states"][0] is outputs["last_hidden_state"]
    assert outputs["last_hidden_state"].shape == (4, outputs["lengths"].max(), SIZES[name])
    assert outputs["last_hidden_state"].dtype == torch.float32
    assert outputs["lengths"].dtype == torch.int64
    assert expert.hidden_size == SIZES[name]
    assert expert.get_downsample_rates("hidden_states") == 160
    assert (expert.name, expert.modality) == (name, "speech")
    assert not list(expert.parameters())
    assert torch.equal(expert(signals)["last_hidden_state"], outputs["last_hidden_state"])


@pytest.mark.parametrize("name", NAMES)
def test_valid_frames_have_mean_zero_and_deviation_one(signals, name):
    outputs = build(name)(signals)
    for row, count in zip(outputs["last_hidden_state"], outputs["lengths"], strict=True):
        if count > 50:
            features = row[:count].numpy().astype(np.float64)
            np.testing.assert_allclose(features.mean(0), 0, atol=1e-4)
            np.testing.assert_allclose(features.std(0, ddof=1), 1, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_leaves_features_alone(signals, name):
    expert = build(name)
    expected = expert(signals)["last_hidden_state"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = expert(signals)["last_hidden_state"]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_signals_too_short_and_tensors_are_refused(name):
    expert = build(name)
    with pytest.raises(ValueError, match="too short"):
        expert([torch.zeros(expert.min_samples - 1)])
    with pytest.raises(ValueError, match="list"):
        expert(torch.zeros(1, 16000))


def test_overrides_are_fields_of_the_configuration(signals):
    assert build("fbank", num_mel_bins=40, num_deltas=1).hidden_size == 80
    assert build("linear", n_fft=400).hidden_size == 201
    expert = build("mfcc", hop_ms=20.0)
    assert expert.get_downsample_rates() == 320
    assert expert(signals)["lengths"].tolist() == [1 + (len(signal) - 400) // 320 for signal in signals]


@pytest.mark.parametrize("name", NAMES)
def test_build_arguments_build_the_same_features_again(signals, name):
    expert = build(name, num_deltas=1, hop_ms=12.5)
    again = build(name, **expert.build_arguments())
    assert torch.equal(again(signals)["last_hidden_state"], expert(signals)["last_hidden_state"])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fbank", {"ckpt": "some.ckpt"}, "fbank has no weights.*some.ckpt"),
        ("mel", {"num_mel_bins": 40}, "num_mel_bins.*n_mels"),
        ("fbank", {"num_mel_bin": 40}, "did you mean num_mel_bins"),
        ("mfcc", {"num_ceps": 40}, "num_ceps.*23"),
        ("fbank", {"num_deltas": 3}, "num_deltas.*3"),
        ("spectrogram", {"window_ms": "long"}, "window_ms.*long"),
        ("linear", {"n_fft": 256}, "n_fft.*256"),
    ],
)
def test_a_users_mistake_is_named(name, arguments, message):
    with pytest.raises(UserError, match=message):
        build(name, **arguments)


def test_hub_entries_are_the_five_names_each_with_a_line():
    entries = {name: entry for name, entry in vars(hubconf).items() if inspect.isfunction(entry)}
    public = [name for name in entries if not name.startswith("_")]
    assert public == NAMES
    for name in public:
        assert len(inspect.getdoc(entries[name]).splitlines()) == 1


def test_a_baseline_imports_nothing_of_training():
    program = (
        f"import sys; sys.path[:] = {sys.path}; from mynah.upstream.baseline import hubconf; "
        "hubconf.fbank(); hubconf.mel(); "
        "print([name for name in ('lightning', 'librosa', 'tensorboard', 'matplotlib') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


def test_a_file_of_options_is_what_g_gives(tmp_path):
    options = tmp_path / "fbank.yaml"
    options.write_text("num_mel_bins: 40\nnum_deltas: 0\n")
    assert build("fbank", config=options).hidden_size == 40
    assert build("fbank", config=options, num_deltas=1).hidden_size == 80
