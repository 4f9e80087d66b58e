"""What a task receives: the choice among hidden states, frozen and trained upstreams, and the cache."""

import pytest
import torch
from torch import Tensor

from mynah.downstream.feature_cache import GIB, FeatureCache, MemoryCache
from mynah.downstream.features import Featurizer, UpstreamFeatures
from mynah.downstream.interfaces import FeaturesConfig
from mynah.upstream.aalbert import hubconf
from mynah.utility.configuration.problems import validate
from mynah.utility.errors import UserError

TINY = {"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def states() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(3 * layer + torch.randn(2, 5, 4, generator=generator) for layer in range(4))


@pytest.fixture
def signals() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(samples, generator=generator) for samples in (9000, 16000, 4321, 12000)]


KEYS = ["a", "b", "c", "d"]


def build_upstream(dropout: float = 0.0):
    torch.manual_seed(2)
    return hubconf.aalbert(random_weights=True, initializer_range=0.2, hidden_dropout_prob=dropout, **TINY)


def build(fine_tune: bool = False, cache_gib: float = 1.0, dropout: float = 0.0, **config) -> UpstreamFeatures:
    """With a cache that has room for all that comes."""
    featurizer = Featurizer(4, FeaturesConfig(**config))
    features = UpstreamFeatures(build_upstream(dropout), featurizer, fine_tune)
    features.cache = MemoryCache(int(cache_gib * GIB)) if cache_gib else FeatureCache()
    return features


@pytest.fixture
def calls(monkeypatch) -> list[list[int]]:
    """The lengths of the signals of every call of the upstream, as it grows."""
    seen = []
    forward = type(build_upstream()).forward

    def spy(self, signals, num_hidden_states=None):
        seen.append([len(signal) for signal in signals])
        return forward(self, signals, num_hidden_states)

    monkeypatch.setattr(type(build_upstream()), "forward", spy)
    return seen


def select(featurizer: Featurizer, states) -> Tensor:
    return featurizer.select(states, torch.full((2,), 5))[0]


# -- the choice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [False, True])
def test_the_weighted_sum_equals_a_loop(states, normalize):
    featurizer = Featurizer(4, FeaturesConfig(normalize=normalize))
    featurizer.weights.data = torch.tensor([0.3, -1.0, 2.0, 0.0])
    shares = [weight.exp().item() for weight in featurizer.weights]
    actual = featurizer(select(featurizer, states))
    for row in range(2):
        for position in range(5):
            expected = torch.zeros(4, dtype=torch.float64)
            for share, state in zip(shares, states, strict=True):
                vector = state[row, position].double()
                if normalize:
                    vector = (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-5).sqrt()
                expected += share / sum(shares) * vector
            torch.testing.assert_close(actual[row, position].double(), expected, atol=1e-5, rtol=0)


def test_the_weighted_sum_begins_as_the_mean_and_learns(states):
    featurizer = Featurizer(4, FeaturesConfig())
    actual = featurizer(select(featurizer, states))
    torch.testing.assert_close(actual, torch.stack(states).mean(0))
    actual.square().sum().backward()
    assert (featurizer.weights.grad != 0).all()


@pytest.mark.parametrize(
    ("config", "layer"),
    [
        ({"selection": "last_hidden_state"}, 3),
        ({"layer": 0}, 0),
        ({"layer": 2}, 2),
        ({"layer": -1}, 3),
        ({"layer": -4}, 0),
    ],
)
def test_one_layer_is_passed_on_as_it_is(states, config, layer):
    featurizer = Featurizer(4, FeaturesConfig(**config))
    assert len(select(featurizer, states)) == 1  # the others need not be kept
    assert torch.equal(featurizer(select(featurizer, states)), states[layer])
    assert not list(featurizer.parameters())


def test_the_only_hidden_state_of_a_baseline_needs_no_weights(states):
    featurizer = Featurizer(1, FeaturesConfig())
    assert torch.equal(featurizer(select(featurizer, states[:1])), states[0])
    assert not list(featurizer.parameters())


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_is_not_there_is_named(layer):
    with pytest.raises(UserError, match=rf"\(-l\): {layer} is not one of the upstream's 4 hidden states, 0 to 3"):
        Featurizer(4, FeaturesConfig(layer=layer))


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"selection": "hidden"}, "selection"),
        ({"selection": "last_hidden_state", "layer": 2}, "layer"),
        ({"cache_gib": -1.0}, "cache_gib"),
    ],
)
def test_impossible_choices_are_named(config, key):
    assert [found for found, _ in validate(FeaturesConfig, config)[1]] == [key]
    assert not validate(FeaturesConfig, {"layer": 2})[1]


# -- frozen and trained ------------------------------------------------------------------------------------------


def test_frozen_means_eval_at_all_times_and_no_gradients(signals):
    features = build(dropout=0.5)
    assert not any(module.training for module in features.upstream.modules())  # before anyone calls train()
    assert features.train() is features
    assert features.featurizer.training
    assert not any(module.training for module in features.upstream.modules())
    output, lengths = features(signals, [None] * 4)
    assert torch.equal(lengths, features.upstream(signals)["lengths"])
    output.square().sum().backward()
    assert (features.featurizer.weights.grad != 0).all()
    assert all(parameter.grad is None for parameter in features.upstream.parameters())
    assert not any(parameter.requires_grad for parameter in features.upstream.parameters())


def test_a_frozen_upstreams_states_carry_no_graph(signals):
    features = build(layer=-1)
    features.upstream.requires_grad_(True)  # whatever others do
    assert not features(signals, [None] * 4)[0].requires_grad
    assert not features(signals, KEYS)[0].requires_grad


def test_fine_tuning_trains_the_upstream(signals):
    features = build(fine_tune=True, cache_gib=0.0, dropout=0.5).train()
    assert all(module.training for module in features.upstream.modules())
    output, _ = features(signals, KEYS)
    assert not torch.equal(output, features(signals, KEYS)[0])  # dropout is on
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in features.upstream.model.encoder.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    features.eval()
    assert not any(module.training for module in features.upstream.modules())
    with torch.no_grad():
        assert not features(signals, KEYS)[0].requires_grad


# -- the cache ---------------------------------------------------------------------------------------------------


def test_kept_features_are_the_computed_ones(signals):
    with_cache, without = build(), build(cache_gib=0.0)
    expected, expected_lengths = without(signals, KEYS)
    for keys in ([None] * 4, KEYS, KEYS, ["a", None, "c", None], [None, "b", None, "d"]):
        actual, lengths = with_cache(signals, keys)
        assert torch.equal(lengths, expected_lengths)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    for row, length in enumerate(expected_lengths):
        assert (actual[row, length:] == 0).all()


def test_what_is_kept_is_the_same_to_the_bit_whatever_batch_it_was_first_met_in(signals):
    once, other = build(), build()
    first = once(signals, KEYS)[0]
    assert torch.equal(once(signals, KEYS)[0], first)
    other([signals[3], signals[0]], ["d", "a"])
    other([signals[2], torch.randn(20000)], ["c", None])
    assert torch.equal(other(signals, KEYS)[0], first)


def test_the_upstream_is_called_once_for_a_signal_that_does_not_change(signals, calls):
    features = build()
    for _ in range(3):
        features(signals, KEYS)
        features(signals[::-1], KEYS[::-1])
    assert sorted(calls) == [[4321], [9000], [12000], [16000]]


def test_signals_that_change_are_computed_together_every_time(signals, calls):
    features = build()
    for _ in range(2):
        features(signals, ["a", None, None, "d"])
    assert calls == [[9000], [12000], [16000, 4321], [16000, 4321]]


def test_changing_signals_are_never_kept(signals):
    features = build()
    first, _ = features(signals[:1], [None])
    assert not features.cache.states
    assert not torch.equal(features([signals[1][:9000]], [None])[0], first)


def test_without_a_cache_nothing_is_kept(signals, calls):
    features = build(cache_gib=0.0)
    for _ in range(2):
        features(signals, KEYS)
    assert not len(features.cache)
    assert calls == [[9000, 16000, 4321, 12000]] * 2


def size_of(features: UpstreamFeatures) -> int:
    return sum(state.untyped_storage().nbytes() for state in features.cache.states.values())


def test_what_is_kept_fits_the_room_and_depends_on_names_alone(signals, calls):
    keys = [f"utterance-{index}" for index in range(40)]
    many = [signals[1][: 4000 + 100 * index] for index in range(40)]
    needed = sum(4 * 16 * 4 * ((1 + len(signal) // 160) // 3) for signal in many)  # 4 states, 16 wide, of 4 bytes

    def kept_after(order):
        features = build()
        assert features.count_bytes(map(len, many), 4) == pytest.approx(needed, rel=0.05)  # an estimate
        features.cache = MemoryCache(needed // 2, needed)
        for index in order:
            features([many[index]], [keys[index]])
        return features

    forwards, backwards = kept_after(range(40)), kept_after(reversed(range(40)))
    chosen = {key for key in keys if forwards.cache.keeps(key)}
    for features in (forwards, backwards):
        assert features.cache.states.keys() <= chosen
        assert 0.25 * needed < size_of(features) <= 0.5 * needed
    for key in forwards.cache.states.keys() & backwards.cache.states.keys():
        assert torch.equal(forwards.cache.states[key], backwards.cache.states[key])
    calls.clear()
    again, _ = forwards(many, keys)
    without_room = chosen - forwards.cache.states.keys()
    alone = [len(signal) for signal, key in zip(many, keys, strict=True) if key in without_room]
    together = [len(signal) for signal, key in zip(many, keys, strict=True) if key not in chosen]
    assert calls == [*([length] for length in alone), together]
    torch.testing.assert_close(again, build(cache_gib=0.0)(many, keys)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [{"selection": "last_hidden_state"}, {"layer": 1}])
def test_only_the_chosen_states_are_kept(signals, config):
    features = build(**config)
    features(signals, KEYS)
    assert size_of(features) == sum(16 * 4 * ((1 + len(signal) // 160) // 3) for signal in signals)


def test_what_a_task_does_to_its_features_does_not_change_what_is_kept(signals):
    features = build(layer=2)
    expected = features(signals[:1], ["a"])[0].clone()
    features(signals[:1], ["a"])[0].zero_()
    assert torch.equal(features(signals[:1], ["a"])[0], expected)


def test_features_kept_in_an_evaluation_can_be_trained_on(signals):
    """Lightning evaluates in inference mode, whose tensors autograd refuses."""
    features = build()
    with torch.inference_mode():
        features(signals, KEYS)
    output, _ = features(signals, KEYS)
    output.square().sum().backward()
    assert (features.featurizer.weights.grad != 0).all()


def test_the_cache_never_holds_more_than_its_room():
    features = build()
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(2000, 40000, (60,), generator=generator).tolist()
    features.cache = MemoryCache(200_000, features.count_bytes(lengths, 4))
    assert 0 < features.cache.share < 1
    features.cache.share = 1.0  # an unlucky choice by names
    for number, length in enumerate(lengths):
        features([0.1 * torch.randn(length, generator=generator)], [str(number)])
        assert size_of(features) == features.cache.bytes_kept <= features.cache.room
    assert features.cache.states and len(features.cache.states) < len(lengths)


def test_what_finds_no_room_has_the_features_of_what_does(signals):
    roomy, full = build(), build()
    full.cache.room = 0
    assert torch.equal(roomy(signals, KEYS)[0], full(signals, KEYS)[0])
    assert not full.cache.states


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_layers_above_the_one_that_is_used_are_not_computed(signals, monkeypatch, layer):
    passed = []
    from mynah.utility.nn.encoder import TransformerLayer

    forward = TransformerLayer.forward
    monkeypatch.setattr(TransformerLayer, "forward", lambda self, *given: passed.append(1) or forward(self, *given))
    build(layer=layer, cache_gib=0.0)(signals, [None] * 4)
    assert len(passed) == layer


# -- means -------------------------------------------------------------------------------------------------------


def build_means(**config) -> UpstreamFeatures:
    features = UpstreamFeatures(build_upstream(), Featurizer(4, FeaturesConfig(**config), reads_mean=True), False)
    features.cache = MemoryCache(GIB)
    return features


@pytest.mark.parametrize("config", [{}, {"normalize": True}, {"layer": 2}, {"layer": 1, "normalize": True}])
@pytest.mark.parametrize("keys", [KEYS, [None] * 4, ["a", None, None, "d"]])
def test_the_mean_of_the_features_equals_a_loop_over_frames(signals, config, keys):
    features, frames = build_means(**config), build(cache_gib=0.0, **config)
    if features.featurizer.weights is not None:
        for each in (features, frames):
            each.featurizer.weights.data = torch.tensor([0.3, -1.0, 2.0, 0.0])
    for _ in range(2):
        actual, lengths = features(signals, keys)
        assert actual.shape == (4, 1, 16) and lengths.tolist() == [1] * 4
        for row, signal in enumerate(signals):
            [alone], [length] = frames([signal], [None])
            expected = sum(alone[position].double() for position in range(length)) / length
            torch.testing.assert_close(actual[row, 0].double(), expected, atol=1e-5, rtol=0)


def test_only_means_are_kept_and_they_are_the_same_to_the_bit(signals, calls):
    features, other = build_means(normalize=True), build_means(normalize=True)
    first = features(signals, KEYS)[0]
    assert size_of(features) == 4 * features.count_bytes([1], 4) == 4 * 4 * 16 * 4
    other([signals[3], signals[0]], ["d", "a"])
    assert torch.equal(other(signals, KEYS)[0], first)
    calls.clear()
    assert torch.equal(
        features([torch.empty(0)] * 4, KEYS)[0], first
    )  # the signals of what is kept are not looked at
    assert not calls


def test_a_linear_head_says_of_means_what_it_says_of_frames(signals):
    from mynah.downstream.classification import Classifier, ClassifierConfig

    head = Classifier(16, 5, ClassifierConfig())
    torch.testing.assert_close(head(*build_means()(signals, KEYS)), head(*build()(signals, KEYS)), atol=1e-5, rtol=0)


def test_one_signal_tells_its_positions(signals):
    for features in (build_means(), build()):
        encoded, count = features.encode(signals[0])
        assert torch.equal(encoded, features(signals[:1], [None])[0])
        assert count == features.upstream(signals[:1])["lengths"][0]


def test_the_weighted_sum_is_not_rounded_under_autocast(states):
    featurizer = Featurizer(4, FeaturesConfig())
    expected = featurizer(select(featurizer, states))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = featurizer(select(featurizer, states))
    assert torch.equal(actual, expected)
