"""Audio ALBERT, Mockingjay and MelHuBERT: the recipes of their YAML against the published table, and their sizes."""

import pytest
import torch

from mynah import ROOT
from mynah.utility.acoustic.config import AcousticPretrainConfig
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.configuration.load import load_config, to_plain
from mynah.utility.nn.encoder import TransformerEncoder

NAMES = ["aalbert", "mockingjay"]
ALL = [*NAMES, "melhubert"]


def recipe(name: str, demo: bool = False, file: str = "pretrain_config.yaml") -> AcousticPretrainConfig:
    return load_config(AcousticPretrainConfig, files=[ROOT / "upstream" / name / file], demo=demo)


TABLE = {
    "model.num_hidden_layers": (6, 6),
    "model.num_hidden_groups": (1, 6),
    "model.inner_group_num": (1, 1),
    "model.hidden_size": (768, 768),
    "model.num_attention_heads": (12, 12),
    "model.intermediate_size": (3072, 3072),
    "model.hidden_act": ("gelu", "gelu"),
    "model.layer_norm_eps": (1e-12, 1e-12),
    "model.hidden_dropout_prob": (0, 0),
    "model.attention_probs_dropout_prob": (0, 0),
    "model.initializer_range": (0.02, 0.02),
    "model.frames_per_position": (3, 2),
    "model.mask_token": (True, False),
    "features.spectrogram.n_mels": (80, 80),
    "features.spectrogram.window_ms": (25, 25),
    "features.spectrogram.hop_ms": (10, 10),
    "features.spectrogram.n_fft": (2046, 2046),
    "features.spectrogram.sample_rate": (16000, 16000),
    "features.input": (
        {"feature": "mel", "num_deltas": 1, "cmvn": "utterance"},
        {"feature": "mel", "num_deltas": 0, "cmvn": "utterance"},
    ),
    "objective.reconstruction.targets": (
        [{"feature": "linear", "num_deltas": 0, "cmvn": "utterance"}],
        [
            {"feature": "mel", "num_deltas": 0, "cmvn": "utterance"},
            {"feature": "linear", "num_deltas": 0, "cmvn": "utterance"},
        ],
    ),
    "masking.mask_proportion": (0.15, 0.15),
    "masking.mask_consecutive_min": (1, 1),
    "masking.mask_consecutive_max": (1, 1),
    "masking.zero_probability": (1, 1),
    "masking.replace_probability": (0, 0),
    "masking.max_frequency_bins": (0, 0),
    "optimizer.name": ("adamw", "adamw"),
    "optimizer.lr": (5e-5, 5e-5),
    "optimizer.weight_decay": (1e-2, 1e-5),
    "scheduler.name": ("linear", "linear"),
    "scheduler.num_warmup_steps": (10_000, 10_000),
    "scheduler.num_training_steps": (500_000, 500_000),
    "trainer.max_steps": (500_000, 500_000),
    "trainer.gradient_clip_val": (10, 10),
    "trainer.accumulate_grad_batches": (4, 1),
    "dataloader.batch_size": (12, 24),
    "datarc.max_timestep": (160_000, 160_000),
}


MELHUBERT = {
    "model.num_hidden_layers": 12,
    "model.num_hidden_groups": 1,  # the paper's 12 would be the one difference from this table
    "model.hidden_size": 768,
    "model.num_attention_heads": 12,
    "model.intermediate_size": 3072,
    "model.hidden_act": "gelu",
    "model.hidden_dropout_prob": 0.1,
    "model.attention_probs_dropout_prob": 0.1,
    "model.frames_per_position": 2,
    "model.mask_token": False,
    "features.spectrogram.n_mels": 40,
    "features.spectrogram.window_ms": 25,
    "features.spectrogram.hop_ms": 10,
    "features.input": {"feature": "mel", "num_deltas": 0, "cmvn": "corpus"},
    "objective.name": "clusters",
    "objective.clusters.num_clusters": 512,
    "objective.clusters.feature": {"feature": "mel", "num_deltas": 0, "cmvn": "corpus"},
    "objective.clusters.teacher": None,
    "masking.mask_proportion": 0.5,
    "masking.mask_consecutive_min": 5,
    "masking.mask_consecutive_max": 5,
    "masking.mask_allow_overlap": True,
    "masking.zero_probability": 1,
    "optimizer.name": "adam",
    "optimizer.lr": 1e-4,
    "optimizer.weight_decay": 0,
    "scheduler.name": "constant",
    "trainer.gradient_clip_val": 10,
    "dataloader.batch_size": 32,
    "datarc.max_timestep": 240_000,
}


def test_melhuberts_yaml_is_the_published_recipe():
    plain = to_plain(recipe("melhubert"))
    for key, value in MELHUBERT.items():
        found = plain
        for part in key.split("."):
            found = found[part]
        assert found == value, key


@pytest.mark.parametrize("column", [0, 1], ids=NAMES)
def test_the_yaml_is_the_published_recipe(column):
    plain = to_plain(recipe(NAMES[column]))
    for key, values in TABLE.items():
        found = plain
        for part in key.split("."):
            found = found[part]
        assert found == values[column], key


@pytest.mark.parametrize("name", ALL)
def test_a_share_is_held_out_and_the_demo_fits_the_schema(name):
    assert 0 < recipe(name).datarc.valid_fraction < 0.2
    demo = recipe(name, demo=True)
    assert demo.model.num_hidden_groups == (demo.model.num_hidden_layers if name == "mockingjay" else 1)
    assert demo.model.frames_per_position == recipe(name).model.frames_per_position


@pytest.mark.parametrize("name", ALL)
def test_the_small_recipe_is_the_papers_model_made_small_and_has_a_demo(name):
    base, small = recipe(name), recipe(name, file="small.yaml")
    assert count(TransformerEncoder(small.model)) <= (3e6 if name == "mockingjay" else 2e6)
    assert small.objective.name == base.objective.name
    assert small.features.front_end == base.features.front_end
    if name != "mockingjay":  # the weights that are given away
        assert (small.features.input.cmvn, small.model.frames_per_position) == ("corpus", 2)
    assert small.trainer["max_steps"] == small.scheduler.num_training_steps < base.trainer["max_steps"] / 10
    assert recipe(name, demo=True, file="small.yaml").trainer["max_steps"] == 1000


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


LAYER = 4 * linear(768, 768) + linear(768, 3072) + linear(3072, 768) + 2 * (2 * 768)


def head(outputs: int) -> int:
    return linear(768, 768) + 2 * 768 + linear(768, outputs)


@pytest.mark.parametrize(
    ("name", "encoder", "around"),
    [
        ("aalbert", LAYER, linear(160 * 3, 768) + 2 * 768 + 768 + head(1024 * 3)),
        ("melhubert", LAYER, linear(40 * 2, 768) + 2 * 768 + linear(768, 512)),
        ("mockingjay", 6 * LAYER, linear(80 * 2, 768) + 2 * 768 + head(80 * 2) + head(1024 * 2)),
    ],
)
def test_numbers_of_parameters_are_the_closed_form(name, encoder, around):
    config = recipe(name)
    model = AcousticModel(config)
    assert count(model.encoder) == encoder
    assert count(model) == encoder + around


def test_audio_alberts_encoder_is_a_sixth_of_mockingjays():
    sizes = [count(TransformerEncoder(recipe(name).model)) for name in NAMES]
    assert [round(size / 1e6, 2) for size in sizes] == [7.09, 42.53]
    assert sizes[1] == 6 * sizes[0]
