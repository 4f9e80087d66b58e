"""The peers of docs/peers against their packages, and under the contract; what needs a package is skipped without."""

import importlib.util
from importlib import metadata

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

import mynah
from mynah.utility.errors import UserError

PEERS = mynah.ROOT / "docs" / "peers"
if not PEERS.is_dir():
    pytest.skip("the peers are in a clone's docs", allow_module_level=True)


def installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


needs_resemblyzer = pytest.mark.skipif(
    not installed("resemblyzer", "webrtcvad"), reason="needs Resemblyzer with webrtcvad (docs/peers/README.md)"
)
needs_openwakeword = pytest.mark.skipif(
    not installed("openwakeword", "onnxruntime"), reason="needs openwakeword and onnxruntime (docs/peers/README.md)"
)
VARIANTS = [
    ("resemblyzer", {"random_weights": True}),
    ("resemblyzer", {"random_weights": True, "positions": "frames"}),
    pytest.param(("resemblyzer", {}), marks=needs_resemblyzer),
    pytest.param(("openwakeword", {}), marks=needs_openwakeword),
    pytest.param(("openwakeword", {"windows": "centred"}), marks=needs_openwakeword),
]


def voice(samples: int, seed: int, loudness: float = 0.1) -> Tensor:
    """A harmonic tone in noise: (samples,), of 16-bit values as files hold them."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16000
    tone = sum(torch.sin(2 * torch.pi * harmonic * (120 + 15 * seed) * time) / harmonic for harmonic in range(1, 9))
    wav = loudness * (tone + 0.5 * torch.randn(samples, generator=generator)) * (0.6 + 0.4 * torch.sin(15 * time))
    return (wav.clamp(-1, 1) * 32767).round() / 32768


def load(name: str, **options):
    torch.manual_seed(0)
    return mynah.load(name, plugin_paths=[PEERS], **options).eval()


@pytest.fixture(params=VARIANTS, ids=str)
def expert(request):
    name, options = request.param
    return load(name, **options)


@torch.no_grad()
def test_an_input_has_the_same_features_alone_and_in_a_batch(expert):
    signals = [voice(70001, 1), voice(400, 2), torch.zeros(9000), voice(25599, 3, 0.001), voice(40000, 4)]
    together = expert(signals)
    for row, signal in enumerate(signals):
        alone = expert([signal])
        length = alone["lengths"].item()
        assert length == together["lengths"][row] == expert.count_positions(len(signal)) > 0
        assert len(together["hidden_states"]) == expert.num_hidden_states
        for state, own in zip(together["hidden_states"], alone["hidden_states"], strict=True):
            assert own.shape == (1, length, expert.hidden_size)
            assert own.isfinite().all()
            torch.testing.assert_close(state[row, :length], own[0], atol=1e-5, rtol=0)
            assert (state[row, length:] == 0).all()


def test_they_are_built_again_from_their_own_arguments(expert):
    again = load(expert.name, **expert.build_arguments())
    again.load_state_dict(expert.state_dict())
    signals = [voice(30000, 1)]
    assert again.samples_per_position == expert.samples_per_position
    assert torch.equal(again(signals)["last_hidden_state"], expert(signals)["last_hidden_state"])


@torch.no_grad()
def test_autocast_and_bfloat16_change_rounding_alone(expert):
    signals = [voice(30000, 1), voice(9000, 2)]
    expected = expert(signals)["last_hidden_state"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(expert(signals)["last_hidden_state"], expected)
    rounded = expert.bfloat16()(signals)["last_hidden_state"]
    assert rounded.dtype == expert.dtype
    assert (torch.cosine_similarity(rounded[:, 0].float(), expected[:, 0]) > 0.98).all()


@torch.no_grad()
def test_resemblyzers_frames_are_what_an_lstm_makes_of_librosas_mel_of_a_louder_waveform():
    model, wav = load("resemblyzer", random_weights=True, positions="frames"), voice(30000, 5, 0.001)
    rms = float(wav.square().mean().sqrt())
    mel = librosa.feature.melspectrogram(
        y=wav.numpy() * 10**-1.5 / rms, sr=16000, n_fft=400, hop_length=160, n_mels=40
    )
    states = model([wav])["hidden_states"]
    expected = model.lstm(torch.from_numpy(mel.T.copy())[None])[0]
    torch.testing.assert_close(states[0], expected, atol=1e-5, rtol=0)
    d_vectors = model.linear(expected).relu()
    expected = 16 * d_vectors / d_vectors.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(states[1], expected, atol=1e-4, rtol=0)


@needs_resemblyzer
def test_resemblyzers_partial_utterances_are_the_packages():
    from resemblyzer import VoiceEncoder
    from resemblyzer.audio import normalize_volume

    theirs, ours = VoiceEncoder("cpu", verbose=False), load("resemblyzer")
    wavs = [voice(70001, 1, 0.001), voice(8000, 2), voice(45000, 3)]
    states = ours(wavs)
    for row, wav in enumerate(wavs):
        _, partials, _ = theirs.embed_utterance(normalize_volume(wav.numpy(), -30, increase_only=True), True)
        assert states["lengths"][row] == len(partials)
        given = states["hidden_states"][1][row, : len(partials)].detach().numpy() / 16
        np.testing.assert_allclose(given, partials, atol=1e-5)


@needs_resemblyzer
@pytest.mark.parametrize(("rate", "min_coverage"), [(1.3, 0.75), (4.0, 0.5), (0.7, 1.0)])
def test_resemblyzers_partial_utterances_are_counted_as_the_package_cuts_them(rate, min_coverage):
    from resemblyzer import VoiceEncoder

    model = load("resemblyzer", random_weights=True, rate=rate, min_coverage=min_coverage)
    for samples in [*range(400, 90000, 777), 25600, 25599, 25601, 160 * 237, 160 * 237 - 1]:
        slices, _ = VoiceEncoder.compute_partial_slices(samples, rate, min_coverage)
        assert model.count_positions(samples) == len(slices), samples


@needs_openwakeword
def test_openwakewords_embeddings_are_the_packages():
    from openwakeword.utils import AudioFeatures

    theirs, ours = AudioFeatures(), load("openwakeword")
    wavs = [voice(70001, 1), voice(16000, 2, 0.001), voice(13792, 3), voice(13791, 3)]
    states = ours(wavs)
    for row, wav in enumerate(wavs):
        expected = theirs._get_embeddings((wav.numpy() * 32768).astype(np.int16)).reshape(-1, 96)
        assert states["lengths"][row] == len(expected)
        given = 16 * states["last_hidden_state"][row, : len(expected)].numpy()
        np.testing.assert_allclose(given, expected, atol=1e-4)


@needs_openwakeword
def test_openwakewords_centred_windows_are_those_of_a_waveform_between_silences():
    wav, centred = voice(16000, 2), load("openwakeword", windows="centred")
    silence = torch.zeros(centred.before)
    expected = load("openwakeword")([torch.cat([silence, wav, silence])])["last_hidden_state"]
    given = centred([wav])["last_hidden_state"]
    assert centred.first_center == 640
    torch.testing.assert_close(given[0, :12], expected[0, :12])
    assert given.shape[1] == 12


@pytest.mark.parametrize(
    "name",
    [
        "resemblyzer",
        pytest.param(
            "openwakeword", marks=pytest.mark.skipif(not installed("onnxruntime"), reason="needs onnxruntime")
        ),
    ],
)
def test_a_package_that_is_missing_or_another_is_named(name, monkeypatch, tmp_path):
    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(UserError, match=f"(?i)not installed; pip install --no-deps {name}=="):
        load(name)

    class Other:
        def locate_file(self, path):
            (tmp_path / "file").write_bytes(b"other weights")
            return tmp_path / "file"

    monkeypatch.setattr(metadata, "distribution", lambda package: Other())
    with pytest.raises(UserError, match=f"(?i)file is missing or not that of {name} 0.*pip install"):
        load(name)
    with pytest.raises(UserError, match=r"leave ckpt= .* out"):
        load(name, ckpt="small")
