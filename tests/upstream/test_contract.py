"""What every upstream promises, through its hub entry, with s3prl's featurizer protocol as a customer."""

import copy
import importlib
import inspect
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mynah.plugins import find_plugins, import_plugin
from mynah.upstream.interfaces import SpeechUpstream

PRETRAINED = ["aalbert", "melhubert", "mockingjay"]
BASELINES = ["fbank", "mfcc", "spectrogram", "mel", "linear"]
NAMES = [*PRETRAINED, *BASELINES]
STRIDES = {"aalbert": 480, "melhubert": 320, "mockingjay": 320, **dict.fromkeys(BASELINES, 160)}
SIZES = {**dict.fromkeys(PRETRAINED, 32), "fbank": 240, "mfcc": 39, "spectrogram": 257, "mel": 80, "linear": 1024}
TINY = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
SPREAD = {"initializer_range": 0.2}
"""Weights so large that attention is far from even, and whatever goes wrong shows."""


def voice(samples: int, seed: int) -> Tensor:
    """A harmonic tone in noise, loud and soft by turns: (samples,)."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16000
    tone = sum(torch.sin(2 * torch.pi * harmonic * (120 + 15 * seed) * time) / harmonic for harmonic in range(1, 9))
    return (0.1 * tone + 0.05 * torch.randn(samples, generator=generator)) * (0.6 + 0.4 * torch.sin(15 * time))


def build(name: str, **overrides) -> SpeechUpstream:
    entry = getattr(import_plugin(find_plugins("upstream")[name], "hubconf"), name)
    torch.manual_seed(0)
    if name in PRETRAINED:
        groups = {"num_hidden_groups": 3 if name == "mockingjay" else 1}
        overrides = {**TINY, **SPREAD, **groups, "random_weights": True, **overrides}
    return entry(**overrides)


@pytest.fixture(scope="module", params=NAMES)
def expert(request) -> SpeechUpstream:
    return build(request.param).eval()


@pytest.fixture(scope="module")
def signals() -> list[Tensor]:
    return [voice(samples, seed) for seed, samples in enumerate([9000, 16000, 700, 12345])]


def test_all_upstreams_of_the_repository_are_held_to_the_contract():
    # In test_video_contract.py, test_hf_speech.py and test_s3prl.py.
    elsewhere = ["frame_timm", "vidswin_albert", "hf_video", "hf_speech", "tera"]
    assert sorted(find_plugins("upstream")) == sorted([*NAMES, *elsewhere])


def test_outputs_have_the_shapes_promised(expert, signals):
    outputs = expert(signals)
    assert set(outputs) == {"hidden_states", "last_hidden_state", "lengths"}
    states, lengths = outputs["hidden_states"], outputs["lengths"]
    assert isinstance(states, tuple)
    assert len(states) == expert.num_hidden_states == (4 if expert.name in PRETRAINED else 1)
    assert torch.equal(states[-1], outputs["last_hidden_state"])
    assert (lengths.dtype, lengths.shape) == (torch.int64, (4,))
    for state in states:
        assert state.shape == (4, lengths.max(), expert.hidden_size)
        assert state.dtype == torch.float32
        assert state.isfinite().all()
    assert expert.hidden_size == SIZES[expert.name]
    assert expert.modality == "speech"
    assert expert.get_downsample_rates() == expert.get_downsample_rates("last_hidden_state") == STRIDES[expert.name]


def test_lengths_are_the_valid_positions_and_the_rest_is_zero(expert, signals):
    outputs = expert(signals)
    for row, (signal, length) in enumerate(zip(signals, outputs["lengths"].tolist(), strict=True)):
        if expert.name in PRETRAINED:
            assert length == (1 + len(signal) // 160) // (STRIDES[expert.name] // 160)
        for state in outputs["hidden_states"]:
            assert (state[row, :length] != 0).any(-1).all()
            assert (state[row, length:] == 0).all()


def test_hidden_states_differ_from_layer_to_layer(expert, signals):
    states = expert(signals)["hidden_states"]
    for below, above in itertools.pairwise(states):
        assert (below - above).abs().max() > 0.1


@pytest.mark.parametrize(("samples", "bound"), [(400, 1e-4), (480, 1e-5), (1600, 1e-5)])
def test_the_shortest_inputs_have_the_same_features_alone_and_in_a_batch(expert, samples, bound):
    for seed in range(20):
        signal = voice(samples, seed) * 10.0 ** -(seed % 4)
        with torch.no_grad():
            together, alone = expert([voice(30000, 99), signal, voice(9000, 98)]), expert([signal])
        length = alone["lengths"].item()
        for state, own in zip(together["hidden_states"], alone["hidden_states"], strict=True):
            torch.testing.assert_close(state[1, :length], own[0], atol=bound, rtol=0)


def test_an_input_has_the_same_features_alone_in_a_batch_and_with_other_neighbors(expert, signals):
    signals = [*signals, torch.zeros(15746), voice(expert.min_samples, 8)]  # silence has no deviation to divide by
    batches = [signals, signals[::-1], [voice(40000, 7), *signals], [5 * torch.randn(20001), *signals]]
    for index, signal in enumerate(signals):
        # CMVN divides the rounding of the logarithms by the deviation, next to nothing in the two frames of the last.
        tolerance = 1e-3 if len(signal) == expert.min_samples else 1e-5
        alone = expert([signal])
        length = alone["lengths"].item()
        for batch in batches:
            row = next(row for row, other in enumerate(batch) if other is signal)
            together = expert(batch)
            assert together["lengths"][row] == length
            for layer, (state, expected) in enumerate(
                zip(together["hidden_states"], alone["hidden_states"], strict=True)
            ):
                message = f"signal {index}, layer {layer}, in a batch of {len(batch)}"
                torch.testing.assert_close(state[row, :length], expected[0], atol=tolerance, rtol=0, msg=message)


def test_eval_is_deterministic_also_with_dropout(expert, signals):
    if expert.name in PRETRAINED:
        expert = build(expert.name, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).eval()
    once, again = expert(signals), expert(signals)
    for state, other in zip(once["hidden_states"], again["hidden_states"], strict=True):
        assert torch.equal(state, other)
    if expert.name in PRETRAINED:
        assert not torch.equal(expert.train()(signals)["last_hidden_state"], once["last_hidden_state"])


@pytest.mark.parametrize("name", PRETRAINED)
def test_gradients_reach_every_encoder_parameter_when_fine_tuning(name, signals):
    expert = build(name).train()
    states = expert(signals)["last_hidden_state"]
    (states * torch.randn_like(states)).sum().backward()
    model = expert.model
    for part in (model.encoder, model.input_projection, model.input_norm):
        for parameter_name, parameter in part.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_frozen_upstream_keeps_no_graph(name, signals):
    expert = build(name).requires_grad_(False)
    assert not any(state.requires_grad for state in expert(signals)["hidden_states"])
    expert.requires_grad_(True)
    with torch.no_grad():
        assert not any(state.requires_grad for state in expert(signals)["hidden_states"])


@pytest.mark.parametrize("name", PRETRAINED)
def test_gradients_reach_the_waveform_of_their_own_utterance_only(name, signals):
    expert = build(name).eval()
    wavs = [signal.clone().requires_grad_() for signal in signals]
    state = expert(wavs)["last_hidden_state"][1]
    (state * torch.randn_like(state)).sum().backward()
    assert wavs[1].grad.abs().max() > 0
    for index in (0, 2, 3):
        assert wavs[index].grad is None or wavs[index].grad.abs().max() == 0


def test_bfloat16_autocast_gives_nearly_the_same_features(expert, signals):
    expected = expert(signals)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = expert(signals)
    assert torch.equal(actual["lengths"], expected["lengths"])
    for state, reference in zip(actual["hidden_states"], expected["hidden_states"], strict=True):
        assert state.isfinite().all()
        error = (state.float() - reference).norm() / reference.norm()
        assert error < (0.05 if expert.name in PRETRAINED else 1e-6)


@pytest.mark.parametrize("name", PRETRAINED)
def test_bfloat16_autocast_is_not_without_effect_and_can_be_trained(name, signals):
    expert = build(name).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = expert(signals)["last_hidden_state"]
    assert not torch.equal(states.float(), expert(signals)["last_hidden_state"])
    (states * torch.randn_like(states)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in expert.model.encoder.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_expert_in_half_precision_gives_nearly_the_same_features(expert, signals, dtype):
    exact = expert(signals)
    rounded = copy.deepcopy(expert).to(dtype)
    outputs = rounded(signals)
    assert torch.equal(outputs["lengths"], exact["lengths"])
    for state, expected in zip(outputs["hidden_states"], exact["hidden_states"], strict=True):
        assert state.dtype == rounded.dtype == (dtype if expert.name in PRETRAINED else torch.float32)
        difference = (state.float() - expected).norm() / expected.norm()
        assert difference < (0.05 if dtype == torch.bfloat16 else 0.005)  # the front end itself in half: far more


def test_half_and_double_precision_signals_are_taken(expert, signals):
    expected = expert(signals)["last_hidden_state"]
    double = expert([signal.double() for signal in signals])["last_hidden_state"]
    assert torch.equal(double, expected)
    assert expert([signals[0].half()])["last_hidden_state"].dtype == torch.float32


def test_silence_is_finite(expert):
    assert expert([torch.zeros(8000)])["last_hidden_state"].isfinite().all()


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        (torch.zeros(16000), r"list of 1-D waveforms, got Tensor of shape \(16000,\); pass \[wav\]"),
        (torch.zeros(2, 16000), r"Tensor of shape \(2, 16000\)"),
        (np.zeros((2, 16000)), r"ndarray of shape \(2, 16000\)"),
        (None, "got NoneType"),
        ([], "got an empty one"),
        ([torch.zeros(16000), torch.zeros(1, 16000)], r"signal 1: expected a 1-D float tensor.*\(1, 16000\)"),
        ([torch.zeros(16000, dtype=torch.int16)], "signal 0: expected a 1-D float tensor.*int16"),
        ([np.zeros(16000)], "signal 0: expected a 1-D float tensor.*ndarray"),
        ([torch.zeros(16000), torch.zeros(0)], "signal 1: 0 samples are too short"),
    ],
    ids=str,
)
def test_wrong_signals_are_named(expert, signals, message):
    with pytest.raises(ValueError, match=message):
        expert(signals)


def test_the_shortest_signal_gives_a_position_and_a_shorter_one_an_error(expert):
    assert expert([voice(expert.min_samples, 1)])["lengths"].item() >= 1
    with pytest.raises(ValueError, match=f"{expert.min_samples - 1} samples are too short.*{expert.min_samples}"):
        expert([voice(expert.min_samples - 1, 1)])


def test_an_expert_can_be_copied_and_saved(expert, signals):
    again = copy.deepcopy(expert)
    again.load_state_dict(expert.state_dict(), strict=True)
    assert torch.equal(again(signals)["last_hidden_state"], expert(signals)["last_hidden_state"])


def test_build_arguments_build_the_architecture_again(expert, signals):
    again = build_plain(expert.name, expert.build_arguments())
    again.load_state_dict(expert.state_dict(), strict=True)
    assert torch.equal(again.eval()(signals)["last_hidden_state"], expert(signals)["last_hidden_state"])


def build_plain(name: str, arguments: dict) -> SpeechUpstream:
    plugin = find_plugins("upstream")[name]
    return getattr(importlib.import_module(f"mynah.upstream.{plugin.folder.name}.hubconf"), name)(**arguments)


class S3prlFeaturizer(nn.Module):
    """What s3prl's featurizer asks of an upstream and checks of its answers, written anew from its protocol."""

    MOST_POSITIONS_OFF = 5

    def __init__(self, upstream: nn.Module, key: str = "hidden_states", normalize: bool = False):
        super().__init__()
        self.key, self.normalize = key, normalize
        upstream.eval()
        with torch.no_grad():
            features = self.select(upstream([torch.randn(16000)]))
        self.weights = nn.Parameter(torch.zeros(len(features))) if isinstance(features, list) else None
        self.output_dim = (features[0] if isinstance(features, list) else features).shape[-1]
        assert inspect.ismethod(upstream.get_downsample_rates)
        self.downsample_rate = upstream.get_downsample_rates(key)

    def select(self, outputs: dict) -> list[Tensor] | Tensor:
        features = outputs[self.key]
        if isinstance(features, dict):
            features = list(features.values())
        if isinstance(features, (list, tuple)):
            return list(features) if len(features) > 1 else features[0]
        return features

    def forward(self, wavs: list[Tensor], outputs: dict) -> list[Tensor]:
        features = self.select(outputs)
        if isinstance(features, list):
            assert len(features) == len(self.weights)
            stacked = torch.stack(features)
            if self.normalize:
                stacked = nn.functional.layer_norm(stacked, stacked.shape[-1:])
            features = (self.weights.softmax(-1)[:, None, None, None] * stacked).sum(0)
        assert features.dim() == 3
        longest = max(round(len(wav) / self.downsample_rate) for wav in wavs)
        assert abs(features.shape[1] - longest) < self.MOST_POSITIONS_OFF
        lengths = [round(len(wav) / self.downsample_rate) for wav in wavs]
        return [row[:length] for row, length in zip(features, lengths, strict=True)]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("key", ["hidden_states", "last_hidden_state"])
def test_s3prls_featurizer_drives_the_experts(expert, signals, key, normalize):
    featurizer = S3prlFeaturizer(expert, key, normalize)
    assert featurizer.output_dim == expert.hidden_size
    assert (featurizer.weights is not None) == (key == "hidden_states" and expert.name in PRETRAINED)
    for wavs in (signals, signals[::-1], [voice(samples, 3) for samples in range(16000, 16000 + 480, 37)]):
        outputs = expert(wavs)
        features = featurizer(wavs, outputs)
        for wav, feature, length in zip(wavs, features, outputs["lengths"], strict=True):
            assert abs(round(len(wav) / featurizer.downsample_rate) - length) < S3prlFeaturizer.MOST_POSITIONS_OFF
            assert feature.shape[1] == featurizer.output_dim


@pytest.mark.parametrize("name", PRETRAINED)
def test_s3prls_weighted_sum_learns_through_the_experts(name, signals):
    expert = build(name)
    featurizer = S3prlFeaturizer(expert)
    features = featurizer(signals, expert.train()(signals))
    sum((feature * torch.randn_like(feature)).sum() for feature in features).backward()
    assert (featurizer.weights.grad != 0).all()
    assert expert.model.input_projection.weight.grad.abs().max() > 0
