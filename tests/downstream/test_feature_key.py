"""The key of features on disk: whatever other features would come of, another key."""

import copy

import pytest
import torch

from mynah.downstream import feature_key
from mynah.downstream.feature_key import feature_facts, weights_digest
from mynah.downstream.features import Featurizer, UpstreamFeatures
from mynah.downstream.interfaces import FeaturesConfig
from mynah.upstream.aalbert import hubconf
from mynah.upstream.baseline import hubconf as baselines
from mynah.upstream.mockingjay import hubconf as mockingjay

TINY = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}


def build(reads_mean=True, make=hubconf.aalbert, options=None, **config):
    torch.manual_seed(0)
    upstream = make(random_weights=True, **TINY, **(options or {}))
    return UpstreamFeatures(upstream, Featurizer(3, FeaturesConfig(**config), reads_mean), False)


def key_of(features, dtype="float16", precision="32-true"):
    return feature_key.feature_key(feature_facts(features, dtype, precision))


def another_weight(features):
    next(features.upstream.parameters()).data.view(-1)[3] += 1e-6


def another_buffer(features):
    next(features.upstream.buffers()).data.view(-1)[3] += 1e-6


CHANGES = {"weights": another_weight, "buffers": another_buffer}
OTHERS = {
    "upstream": lambda: build(make=mockingjay.mockingjay, options={"num_hidden_groups": 1}),
    "options": lambda: build(options={"hidden_act": "relu"}),
    "front end": lambda: build(options={"features.input.cmvn": False}),
    "layers": lambda: build(layer=1),
    "last layer": lambda: build(selection="last_hidden_state"),
    "frames": lambda: build(reads_mean=False),
    "normalized": lambda: build(normalize=True),
}


def test_the_same_features_have_the_same_key():
    assert key_of(build()) == key_of(build()) != key_of(build(), dtype="float32")
    assert key_of(build()) != key_of(build(), precision="bf16-mixed")
    assert len(key_of(build())) == 32
    assert key_of(build(zeroed=True, cache_gib=1.0)) == key_of(build())


@pytest.mark.parametrize("change", list(CHANGES))
def test_other_tensors_have_another_key(change):
    features = build()
    before = key_of(features)
    CHANGES[change](features)
    assert key_of(features) != before


@pytest.mark.parametrize("other", list(OTHERS))
def test_other_features_have_another_key(other):
    assert key_of(OTHERS[other]()) != key_of(build())


@pytest.mark.parametrize("name", ["mynah", "torch", "torchaudio"])
def test_other_versions_have_another_key(monkeypatch, name):
    features = build()
    before, versions = key_of(features), feature_key.library_versions()
    monkeypatch.setattr(feature_key, "library_versions", lambda: {**versions, name: "99.0"})
    assert key_of(features) != before


def test_another_format_device_or_arithmetic_has_another_key(monkeypatch):
    features = build()
    before = key_of(features)
    facts = feature_facts(features, "float16", "32-true")
    assert facts["device"] == "cpu"
    assert feature_key.feature_key({**facts, "device": "cuda"}) != before
    monkeypatch.setattr(feature_key, "FORMAT", 99)
    assert key_of(features) != before
    monkeypatch.undo()
    torch.set_float32_matmul_precision("high")
    try:
        assert key_of(features) != before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_other_code_has_another_key(tmp_path, monkeypatch):
    """A plugin in a folder of its own that is being worked on keeps its version, but not its features."""
    import importlib.util
    import sys

    source = tmp_path / "own_upstream.py"
    source.write_text("from torch import nn\nclass Own(nn.Linear):\n    pass\n")
    spec = importlib.util.spec_from_file_location("own_upstream", source)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_upstream", module)
    spec.loader.exec_module(module)
    own = module.Own(2, 2)
    before = feature_key.code_digest(own)
    assert feature_key.code_digest(copy.deepcopy(own)) == before
    source.write_text(source.read_text() + "# changed\n")
    assert feature_key.code_digest(own) != before


def test_an_upstream_without_weights_has_a_key():
    fbank = UpstreamFeatures(baselines.fbank(), Featurizer(1, FeaturesConfig()), False)
    mel = UpstreamFeatures(baselines.mel(), Featurizer(1, FeaturesConfig()), False)
    assert key_of(fbank) != key_of(mel)


def test_digests_tell_names_shapes_and_kinds_apart():
    def digest(**tensors):
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor, persistent=False)
        return weights_digest(module)

    zeros = torch.zeros(2, 3)
    found = {
        digest(a=zeros),
        digest(b=zeros),
        digest(a=torch.zeros(3, 2)),
        digest(a=zeros.int()),
        digest(a=zeros, b=zeros.clone()),
        digest(a=torch.zeros(2, 6, dtype=torch.float16)),
        digest(a=zeros.bfloat16()),
        digest(a=torch.zeros(())),
        digest(),
    }
    assert len(found) == 9
