"""How the experts of aalbert, melhubert and mockingjay are loaded: checkpoints, files, overrides, refusals."""

import logging
from pathlib import Path

import pytest
import torch

from mynah.upstream.aalbert import hubconf as aalbert_hub
from mynah.upstream.melhubert import hubconf as melhubert_hub
from mynah.upstream.mockingjay import hubconf as mockingjay_hub
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, make_metadata, save_atomically

NAMES = ["aalbert", "melhubert", "mockingjay"]
ENTRIES = {
    "aalbert": aalbert_hub.aalbert,
    "melhubert": melhubert_hub.melhubert,
    "mockingjay": mockingjay_hub.mockingjay,
}
TINY = {"num_hidden_layers": 2, "num_hidden_groups": 1, "hidden_size": 16, "num_attention_heads": 2}


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def checkpoint(tmp_path, name) -> Path:
    """A checkpoint as pretraining writes it, of a tiny model with dropout."""
    expert = ENTRIES[name](random_weights=True, hidden_dropout_prob=0.3, **TINY)
    metadata = make_metadata("pretrain", name, expert.build_arguments()["config"], step=42)
    path = tmp_path / "exp" / "checkpoints" / "last.ckpt"
    save_atomically({"state_dict": expert.state_dict(), METADATA: metadata}, path)
    return path


def test_a_checkpoint_brings_its_configuration_and_every_weight(checkpoint, name, caplog):
    with caplog.at_level(logging.INFO, logger="mynah"):
        expert = ENTRIES[name](ckpt=checkpoint)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert str(checkpoint) in record.getMessage()
    assert "step 42" in record.getMessage()
    assert (expert.hidden_size, expert.num_hidden_states) == (16, 3)
    assert expert.model.config.model.hidden_dropout_prob == 0.3
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert stored.keys() == expert.state_dict().keys()
    assert any(key.startswith("model.objective.") for key in stored)
    for key, value in expert.state_dict().items():
        assert torch.equal(value, stored[key]), key


def test_without_a_checkpoint_the_weights_are_random_and_a_warning_says_so(name, caplog):
    with caplog.at_level(logging.INFO, logger="mynah"):
        ENTRIES[name](**TINY)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert name in record.getMessage()
    assert "random" in record.getMessage()
    assert ("for want of a corpus' statistics" in record.getMessage()) == (name == "melhubert")
    caplog.clear()
    ENTRIES[name](random_weights=True, **TINY)
    assert not caplog.records


def test_an_experiments_directory_will_do(checkpoint, name):
    expert = ENTRIES[name](ckpt=checkpoint.parent.parent)
    assert torch.equal(expert.state_dict()["model.input_norm.weight"], torch.ones(16))


def test_missing_surplus_and_misshapen_weights_are_refused(checkpoint, name):
    content = torch.load(checkpoint, weights_only=True)
    key = "model.input_projection.weight"
    for change, message in {
        lambda weights: weights.pop(key): "1 missing: input_projection.weight",
        lambda weights: weights.update({"model.more": torch.zeros(1)}): "1 not expected: more",
        lambda weights: weights.update(
            {key: torch.zeros(1, 1)}
        ): r"1 of another shape: input_projection.weight \(1, 1\)",
    }.items():
        changed = {**content, "state_dict": dict(content["state_dict"])}
        change(changed["state_dict"])
        save_atomically(changed, checkpoint)
        with pytest.raises(UserError, match=rf"last\.ckpt: its weights do not fit.*{message}"):
            ENTRIES[name](ckpt=checkpoint)


def test_the_other_models_checkpoint_is_refused(checkpoint, name):
    other = NAMES[NAMES.index(name) - 1]
    with pytest.raises(UserError, match=rf"last\.ckpt: holds upstream '{name}', but '{other}' was asked for"):
        ENTRIES[other](ckpt=checkpoint)


def test_a_configuration_that_does_not_fit_the_weights_is_refused(checkpoint, name):
    with pytest.raises(UserError, match="do not fit the model"):
        ENTRIES[name](ckpt=checkpoint, hidden_size=32)


def test_a_file_goes_over_what_the_checkpoint_says(checkpoint, name, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {hidden_dropout_prob: 1e-1}\noptimizer: {lr: 1e-4}\n")
    expert = ENTRIES[name](ckpt=checkpoint, config=file)
    assert expert.model.config.model.hidden_dropout_prob == 0.1
    assert expert.hidden_size == 16
    assert ENTRIES[name](config=str(file), random_weights=True).hidden_size == 768


def test_overrides_are_single_values_and_leave_the_callers_own_alone(name):
    given = ENTRIES[name](random_weights=True, **TINY).build_arguments()["config"]
    expert = ENTRIES[name](
        config=given, random_weights=True, num_hidden_layers=4, **{"features.spectrogram.n_mels": 30}
    )
    assert expert.num_hidden_states == 5
    assert expert.model.features.front_end.num_bins("mel") == 30
    assert given["model"]["num_hidden_layers"] == 2
    assert given["features"]["spectrogram"]["n_mels"] == (40 if name == "melhubert" else 80)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hiden_size": 3}, "model.hiden_size: unknown key; did you mean model.hidden_size"),
        ({"hidden_size": "wide"}, "model.hidden_size"),
        ({"hidden_size": 30}, "num_attention_heads: 12 does not divide hidden_size 30"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml: no such file"),
        ({"config": {"model": {"hidden_siz": 3}}}, "did you mean model.hidden_size"),
        ({"ckpt": "nowhere.ckpt"}, "nowhere.ckpt: no such checkpoint"),
    ],
)
def test_a_users_mistake_is_named(name, options, message):
    with pytest.raises(UserError, match=message):
        ENTRIES[name](**options)


def test_a_mistake_in_a_file_names_the_file(name, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {hiden_size: 3}\n")
    with pytest.raises(UserError, match=r"mine\.yaml(.|\n)*did you mean model.hidden_size"):
        ENTRIES[name](config=file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle: {hidden_size: 32}", "has none of the sections model, features, objective; its keys are modle"),
        ("model: {hidden_size: '${nothing.here}'}", r"[\s\S]*model.hidden_size: expected a whole number"),
    ],
)
def test_a_file_that_says_nothing_of_the_model_is_refused(name, tmp_path, text, words):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"mine\.yaml: ?{words}"):
        ENTRIES[name](config=file)


def test_attention_maps_are_given_on_request(name):
    expert = ENTRIES[name](random_weights=True, **TINY).eval()
    signals = [torch.randn(16000), torch.randn(9000)]
    attentions, lengths = expert.attentions(signals)
    assert torch.equal(lengths, expert(signals)["lengths"])
    assert len(attentions) == 2
    longest = int(lengths.max())
    for attention in attentions:
        assert attention.shape == (2, 2, longest, longest)
        assert (attention[1, :, :, lengths[1] :] == 0).all()
    with pytest.raises(ValueError, match="list"):
        expert.attentions(signals[0])


class LastHiddenState(torch.nn.Module):
    """What the README exports."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, wavs, lengths):
        states, positions, _ = self.model(wavs, lengths)
        return states[-1], positions


def test_a_model_is_exported_for_batches_and_waveforms_of_any_length(name):
    model = ENTRIES[name](random_weights=True, **TINY).eval().model
    stride, hop = model.positions.samples_per_position, 160
    batch, k = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("k", min=3, max=3000)
    wavs, lengths = 0.1 * torch.randn(2, 20 * stride - hop), torch.tensor([20 * stride - hop, 5000])
    shapes = {"wavs": {0: batch, 1: stride * k - hop}, "lengths": {0: batch}}
    program = torch.export.export(LastHiddenState(model), (wavs, lengths), dynamic_shapes=shapes)
    for count, samples in ((3, [9000, 16000, 5001]), (1, [20000]), (2, [4000, 4000])):
        length = -(-(max(samples) + hop) // stride) * stride - hop
        wavs = torch.zeros(count, length)
        for row, number in enumerate(samples):
            wavs[row, :number] = 0.1 * torch.randn(number)
        lengths = torch.tensor(samples)
        exported, positions = program.module()(wavs, lengths)
        expected, expected_positions = LastHiddenState(model)(wavs, lengths)
        assert torch.equal(positions, expected_positions)
        for row, valid in enumerate(positions):
            torch.testing.assert_close(exported[row, :valid], expected[row, :valid], atol=1e-5, rtol=1e-4)
