"""s3prl's checkpoints as upstreams, against its equations written anew in `s3prl_peer.py`."""

import copy
import logging

import numpy as np
import pytest
import torch
from torch import Tensor

import mynah
from mynah.utility.errors import UserError
from tests.upstream import s3prl_peer as peer

LINEAR = {**peer.MEL, "feat_type": "linear"}
VARIANTS = {
    "linear input": ("mockingjay", {"audio.input": LINEAR, "audio.target": LINEAR}),
    "two deltas": ("tera", {"audio.input": {**peer.MEL, "delta": 2}}),
    "no CMVN": ("mockingjay", {"audio.input": {**peer.MEL, "cmvn": False}}),
    "no target": ("mockingjay", {"audio.target": ...}),
    "40 filters, louder": ("audio_albert", {"audio.n_mels": 40, "audio.target_level": -10}),
    "longer transform": ("mockingjay", {"audio.n_freq": 257}),
    "relu": ("mockingjay", {"transformer.hidden_act": "relu"}),
    "swish": ("audio_albert", {"transformer.hidden_act": "swish"}),
    "one layer": ("audio_albert", {"transformer.num_hidden_layers": 1}),
    "no limit": ("mockingjay", {"task.sequence_length": 0}),
    "parts": ("mockingjay", {"task.sequence_length": 30}),
    "parts, the last short": ("tera", {"task.sequence_length": 4}),
    "Kaldi's mfcc": ("tera_fbank", {"audio.kaldi.feat_type": "mfcc"}),
    "Kaldi's spectrogram": ("tera_fbank", {"audio.kaldi.feat_type": "spectrogram"}),
    "40 of Kaldi's filters": ("tera_fbank", {"audio.kaldi.fbank.num_mel_bins": 40, "audio.delta.order": 0}),
    "a default named": ("tera_fbank", {"audio.kaldi.fbank.dither": 0.0, "task.sequence_length": 50}),
}


def voice(samples: int, seed: int = 0) -> Tensor:
    """A harmonic tone in noise, loud and soft by turns: (samples,)."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16000
    tone = sum(torch.sin(2 * torch.pi * harmonic * (120 + 15 * seed) * time) / harmonic for harmonic in range(1, 9))
    return (0.1 * tone + 0.05 * torch.randn(samples, generator=generator)) * (0.6 + 0.4 * torch.sin(15 * time))


def load(kind: str, path, **options):
    return mynah.load(peer.NAMES.get(kind, "tera"), ckpt=path, **options).eval()


def make(tmp_path, kind: str, layout: str = "2021", zipped: bool = True, **changes):
    """(the upstream, the content of its file)."""
    whole = peer.content(kind, layout, **changes)
    return load(kind, peer.write(tmp_path / "states-1000000.ckpt", whole, zipped)), whole


def assert_same_states(expert, whole, wav: Tensor) -> None:
    expected = peer.hidden_states(whole, wav)
    with torch.no_grad():
        output = expert([wav])
    assert output["lengths"].item() == len(expected[0])
    assert len(output["hidden_states"]) == len(expected) == expert.num_hidden_states
    for state, reference in zip(output["hidden_states"], expected, strict=True):
        torch.testing.assert_close(state[0].double(), torch.from_numpy(reference), atol=1e-4, rtol=0)
        assert state.std() > 0.3  # of noise, not of zeros


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", peer.LAYOUTS)
@pytest.mark.parametrize("kind", peer.KINDS)
def test_hidden_states_are_those_of_the_published_equations(tmp_path, kind, layout, zipped):
    expert, whole = make(tmp_path, kind, layout, zipped)
    assert expert.get_downsample_rates() == 160
    assert expert.num_hidden_states == (5 if kind == "mockingjay_linear" else 4)
    groups = 1 if kind == "audio_albert" else expert.num_hidden_states - 1
    assert len(expert.model.encoder.groups) == groups
    assert_same_states(expert, whole, voice(9033))


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_configuration_says_is_built(tmp_path, variant):
    kind, changes = VARIANTS[variant]
    expert, whole = make(tmp_path, kind, **changes)
    for samples in (5333, 16007):
        assert_same_states(expert, whole, voice(samples, seed=2))


@pytest.mark.parametrize("samples", [15 * 16000 - 160, 15 * 16000])  # 1500 and 1501 frames
def test_files_of_over_1500_frames_are_cut_after_normalization(tmp_path, samples):
    expert, whole = make(tmp_path, "audio_albert")
    assert_same_states(expert, whole, voice(samples))


@pytest.mark.parametrize("gain", [1e-4, 1e-2, 1.0])
def test_loudness_is_normalized_before_the_logarithms_floor(tmp_path, gain):
    expert, whole = make(tmp_path, "mockingjay")
    assert_same_states(expert, whole, gain * voice(8000))
    states = [expert([factor * voice(8000)])["last_hidden_state"] for factor in (1, gain)]
    torch.testing.assert_close(*states, atol=1e-4, rtol=0)


def test_positions_of_stacked_frames_are_those_of_v01(tmp_path):
    """Its Audio ALBERT took three frames a position; s3prl repeats each state three times, which is left out here."""
    whole = peer.content("audio_albert", "v0.1", **{"transformer.downsample_rate": 3, "task.sequence_length": 0})
    expert = load("audio_albert", peer.write(tmp_path / "a.ckpt", whole))
    assert expert.get_downsample_rates() == 480
    assert_same_states(expert, whole, voice(9000))


@pytest.mark.parametrize("longest", [0, 12])
@pytest.mark.parametrize("blank", [[], [3], [0, 1, 2], [47, 48, 49], list(range(20, 40)), list(range(50))], ids=str)
def test_frames_that_sum_to_zero_shorten_what_is_attended_to(tmp_path, blank, longest):
    expert, whole = make(tmp_path, "mockingjay", **{"task.sequence_length": longest})
    x = torch.randn(50, 80, generator=torch.Generator().manual_seed(1))
    x[blank] = 0
    expected = peer.states_of_features(whole, x.double().numpy())
    with torch.no_grad():
        together = torch.stack([x, torch.randn(50, 80)])[:, :, None]
        states, _, _ = expert.model.encode(together, torch.tensor([50, 30]))
    for state, reference in zip(states, expected, strict=True):
        torch.testing.assert_close(state[0].double(), torch.from_numpy(reference), atol=1e-4, rtol=0)


def test_attention_maps_of_parts_are_zero_between_them_and_explain_the_states(tmp_path):
    expert, _ = make(tmp_path, "audio_albert", **{"task.sequence_length": 20})
    maps, lengths = expert.attentions([voice(8000), voice(4000, 1)])  # parts of 17, 17, 17 and of 13, 13 frames
    assert lengths.tolist() == [51, 26]
    for each in maps:
        assert each.shape == (2, peer.HEADS, 51, 51)
        part = torch.arange(51) // 17
        assert (each[0][:, part[:, None] != part] == 0).all()
        assert (each[1, :, :13, 13:] == 0).all()
        torch.testing.assert_close(each[0].sum(-1), torch.ones(peer.HEADS, 51))
        torch.testing.assert_close(each[1, :, :26].sum(-1), torch.ones(peer.HEADS, 26))


@pytest.mark.parametrize("kind", ["audio_albert", "tera_fbank"])
@pytest.mark.parametrize("longest", [1500, 20])
def test_an_input_has_the_same_features_alone_and_in_any_batch(tmp_path, kind, longest):
    """Which s3prl's own do not: it reflects and differentiates at the batch's end, and cuts by the longest."""
    expert, _ = make(tmp_path, kind, **{"task.sequence_length": longest})
    signals = [voice(9000), voice(16000, 1), voice(700, 2), voice(3300, 3), torch.zeros(4000)]
    for batch in (signals, signals[::-1], [voice(20000, 4), *signals]):
        together = expert(batch)
        for row, signal in enumerate(batch):
            alone = expert([signal])
            length = alone["lengths"].item()
            assert together["lengths"][row] == length
            for state, own in zip(together["hidden_states"], alone["hidden_states"], strict=True):
                torch.testing.assert_close(state[row, :length], own[0], atol=1e-5, rtol=0)
                assert (state[row, length:] == 0).all()


def test_half_precision_autocast_and_silence_are_taken(tmp_path):
    expert, _ = make(tmp_path, "tera", **{"task.sequence_length": 20})
    exact = expert([voice(8000)])["last_hidden_state"]
    for dtype, most in ((torch.float16, 0.01), (torch.bfloat16, 0.06)):
        rounded = copy.deepcopy(expert).to(dtype)([voice(8000)])["last_hidden_state"]
        assert rounded.dtype == dtype
        assert (rounded.float() - exact).norm() / exact.norm() < most
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (expert([voice(8000)])["last_hidden_state"] - exact).norm() / exact.norm() < 0.06
    assert expert([torch.zeros(8000)])["last_hidden_state"].isfinite().all()


def test_gradients_reach_the_weights_and_their_own_waveform_only(tmp_path):
    expert, _ = make(tmp_path, "audio_albert", **{"task.sequence_length": 20})
    wavs = [voice(8000).requires_grad_(), voice(5000, 1).requires_grad_()]
    output = expert.train()(wavs)["last_hidden_state"]
    (output[0] * torch.randn_like(output[0])).sum().backward()
    for name, parameter in expert.model.named_parameters():
        if not name.startswith("objective"):
            assert parameter.grad.abs().max() > 0, name
    assert wavs[0].grad.abs().max() > 0
    assert wavs[1].grad.abs().max() == 0
    frozen = expert.requires_grad_(False).eval()
    assert not any(state.requires_grad for state in frozen([voice(8000)])["hidden_states"])


def test_dropout_is_that_of_their_training_and_can_be_set(tmp_path):
    expert, _ = make(tmp_path, "mockingjay")
    assert expert.model.config.model.hidden_dropout_prob == 0.1
    assert not torch.equal(*(expert.train()([voice(8000)])["last_hidden_state"] for _ in range(2)))
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    expert = load("mockingjay", tmp_path / "states-1000000.ckpt", **quiet).train()
    assert torch.equal(*(expert([voice(8000)])["last_hidden_state"] for _ in range(2)))


@pytest.mark.parametrize("kind", ["audio_albert", "mockingjay_linear", "tera_fbank"])
def test_build_arguments_build_it_again_without_the_file(tmp_path, kind):
    expert, _ = make(tmp_path, kind, **{"task.sequence_length": 30})
    (tmp_path / "states-1000000.ckpt").unlink()
    again = mynah.load(expert.name, **expert.build_arguments())
    again.load_state_dict(expert.state_dict(), strict=True)
    for one, other in zip(
        expert([voice(8000)])["hidden_states"], again.eval()([voice(8000)])["hidden_states"], strict=True
    ):
        assert torch.equal(one, other)


def test_a_task_is_trained_on_it_and_needs_the_file_no_more(tmp_path, corpus):
    path = peer.write(tmp_path / "states-1000000.ckpt", peer.content("audio_albert", "v0.1"))
    options = ["trainer.max_steps=1", "dataloader.num_workers=0", f"datarc.file_path={corpus}"]
    mynah.train(
        "voxceleb1_speaker",
        upstream="aalbert",
        checkpoint=path,
        name="sid",
        root=tmp_path,
        fine_tune=True,
        overrides=[*options, "trainer.enable_progress_bar=false"],
    )
    path.unlink()
    (prediction,) = mynah.predict(tmp_path / "sid", [next(corpus.rglob("*.wav"))])
    assert "speaker" in str(prediction)


def test_the_graph_takes_as_many_positions_as_are_encoded_whole(tmp_path):
    class LastHiddenState(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, wavs, lengths):
            states, positions, _ = self.model(wavs, lengths)
            return states[-1], positions

    expert, _ = make(tmp_path, "audio_albert", **{"task.sequence_length": 60})
    k = torch.export.Dim("k", min=3, max=60)
    wavs, lengths = torch.stack([voice(160 * 40 - 160)] * 2), torch.tensor([6240, 4000])
    shapes = {"wavs": {1: 160 * k - 160}, "lengths": {}}
    program = torch.export.export(LastHiddenState(expert.model), (wavs, lengths), dynamic_shapes=shapes)
    wavs, lengths = torch.stack([voice(160 * 59, 1)] * 2), torch.tensor([160 * 59, 3000])
    expected, positions = LastHiddenState(expert.model)(wavs, lengths)
    found, _ = program.module()(wavs, lengths)
    for row, valid in enumerate(positions):
        torch.testing.assert_close(found[row, :valid], expected[row, :valid], atol=1e-5, rtol=1e-4)
    longer = {"wavs": {1: 160 * torch.export.Dim("k", min=3, max=61) - 160}, "lengths": {}}
    too_long = torch.stack([voice(160 * 60, 1)] * 2), torch.tensor([160 * 60, 3000])
    with pytest.raises(Exception, match="60"):  # when it is made or, in other versions of torch, when it is run
        torch.export.export(LastHiddenState(expert.model), (wavs, lengths), dynamic_shapes=longer).module()(*too_long)


def test_the_heads_are_theirs(tmp_path):
    expert, whole = make(tmp_path, "mockingjay_linear", "v0.1")
    weights = {name: weight.double().numpy() for name, weight in whole["SpecHead"].items()}
    x = torch.randn(7, peer.WIDTH)
    hidden = peer.ACTIVATIONS["gelu"](x.double().numpy() @ weights["dense.weight"].T + weights["dense.bias"])
    hidden = hidden - hidden.mean(1, keepdims=True)
    hidden = hidden / np.sqrt((hidden**2).mean(1, keepdims=True)) * weights["LayerNorm.gamma"]
    expected = (hidden + weights["LayerNorm.beta"]) @ weights["output.weight"].T + weights["output.bias"]
    predicted = expert.model.objective(x)["linear"]
    torch.testing.assert_close(predicted.double(), torch.from_numpy(expected), atol=1e-4, rtol=0)


def test_the_log_says_what_was_loaded(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "mynah"):
        make(tmp_path, "tera", "v0.1")
    assert "states-1000000.ckpt (of s3prl, step 500000, " in caplog.text


REFUSED = {
    "pre_layer_norm": ({"transformer.pre_layer_norm": True}, "pre_layer_norm is true, which is another network"),
    "pruned": ({"transformer.prune_headids": "0,1"}, "prune_headids is '0,1': heads were taken out"),
    "activation": ({"transformer.hidden_act": "mish"}, "hidden_act is 'mish'; those.*gelu, relu, swish"),
    "no width": ({"transformer.hidden_size": ...}, "its configuration has no hidden_size"),
    "odd width": ({"transformer.hidden_size": "wide"}, "hidden_size is 'wide', not a whole number"),
    "odd heads": ({"transformer.num_attention_heads": 5}, "5 does not divide hidden_size"),
    "negative length": ({"task.sequence_length": -5}, "max_positions"),
    "stacked parts": ({"transformer.downsample_rate": 3}, "downsample_rate is 3 and max_input_length 1500"),
    "no front end": ({"audio": ...}, "no section audio: it was trained on features that were computed outside"),
    "no logarithm": ({"audio.input": {**peer.MEL, "log": False}}, "in audio.input, log is false; there are only log"),
    "waveforms": (
        {"audio.input": {**peer.MEL, "feat_type": "wav"}},
        "audio.input, feat_type is 'wav'; those.*mel, lin",
    ),
    "phase": ({"audio.target": {**peer.MEL, "feat_type": "phase"}}, "in audio.target, feat_type is 'phase'"),
    "three deltas": ({"audio.input": {**peer.MEL, "delta": 3}}, "num_deltas"),
    "no level": ({"audio.target_level": ...}, "its configuration has no target_level"),
    "another rate": ({"audio.sample_rate": 8000}, "sample_rate: waveforms are brought to 16000 Hz"),
    "energy": ({"audio": {**peer.KALDI, "kaldi": {"fbank": {"use_energy": True}}}}, "fbank.use_energy is true"),
    "energies": ({"audio": {**peer.KALDI, "kaldi": {"fbank": {"use_log_fbank": False}}}}, "use_log_fbank is false"),
    "pitch": ({"audio": {**peer.KALDI, "kaldi": {"feat_type": "pitch"}}}, "feat_type is 'pitch'"),
    "wide deltas": ({"audio": {**peer.KALDI, "delta": {"win_length": 9}}}, "win_length is 9, which cannot be set"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_built_is_refused_by_name(tmp_path, case):
    changes, message = REFUSED[case]
    whole = peer.content("mockingjay")
    whole["Config"] = peer.changed(whole["Config"], changes)
    path = peer.write(tmp_path / "a.ckpt", whole)
    with pytest.raises(UserError, match=rf"(?s)a\.ckpt.*{message}"):
        mynah.load("mockingjay", ckpt=path)


DAMAGED = {
    "a weight less": ("pop", "encoder.layer.1.output.dense.bias", r"1 missing: encoder\.groups\.1\.0\.output\.bias"),
    "no query": (
        "pop",
        "encoder.layer.2.attention.self.query.weight",
        r"missing: encoder\.groups\.2.*query_key_value",
    ),
    "no key": ("pop", "encoder.layer.2.attention.self.key.weight", r"lacks .*self\.key\.weight.* of one shape"),
    "a weight more": ("add", "encoder.layer.0.attention.self.extra.weight", "not expected: .*extra.weight"),
    "a layer more": ("add", "encoder.layer.3.output.dense.bias", "1 not expected"),
    "another size": ("reshape", "input_representations.spec_transform.weight", "of another shape: input_projection"),
    "not finite": ("nan", "encoder.layer.0.output.dense.bias", "Transformer holds weights that are NaN"),
    "no tensor": ("text", "encoder.layer.0.output.dense.bias", "Transformer holds something else than weights"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_weights_that_do_not_fit_are_refused(tmp_path, damage):
    how, name, message = DAMAGED[damage]
    whole = peer.content("mockingjay")
    weights = whole["Transformer"]
    before = weights.pop(name, torch.zeros(peer.WIDTH))
    changed = {
        "add": before,
        "reshape": before[:, 1:] if before.dim() > 1 else before,
        "nan": before / 0,
        "text": "x",
    }
    if how != "pop":
        weights[name] = changed[how]
    with pytest.raises(UserError, match=rf"(?s)a\.ckpt.*{message}"):
        mynah.load("mockingjay", ckpt=peer.write(tmp_path / "a.ckpt", whole))


def test_layers_that_share_their_weights_must_be_equal_and_all_there(tmp_path):
    whole = peer.content("audio_albert")
    whole["Transformer"]["encoder.layer.2.output.dense.bias"] = torch.ones(peer.WIDTH)
    with pytest.raises(UserError, match=r"share_layer\), but encoder\.layer\.2\.output\.dense\.bias differs"):
        mynah.load("aalbert", ckpt=peer.write(tmp_path / "a.ckpt", whole))
    whole = peer.content("audio_albert")
    whole["Config"] = peer.configuration("audio_albert", **{"transformer.num_hidden_layers": 5})
    with pytest.raises(UserError, match="weights of 3 layers for num_hidden_layers 5"):
        mynah.load("aalbert", ckpt=peer.write(tmp_path / "a.ckpt", whole))


@pytest.mark.parametrize(
    ("kind", "asked", "advice"),
    [
        ("audio_albert", "mockingjay", "layers share their weights, which is no 'mockingjay'; give -u aalbert"),
        ("audio_albert", "tera", "layers share their weights, which is no 'tera'; give -u aalbert"),
        (
            "mockingjay",
            "aalbert",
            "layers have weights of their own, which is no 'aalbert'; give -u mockingjay or -u tera",
        ),
        ("tera", "aalbert", "layers have weights of their own, which is no 'aalbert'; give -u tera or -u mockingjay"),
    ],
)
def test_another_upstreams_file_is_refused_with_the_name_to_give(tmp_path, kind, asked, advice):
    path = peer.write(tmp_path / "a.ckpt", peer.content(kind))
    with pytest.raises(UserError, match=rf"a\.ckpt: a model of s3prl whose {advice}"):
        mynah.load(asked, ckpt=path)


@pytest.mark.parametrize(("kind", "asked"), [("tera", "mockingjay"), ("mockingjay", "tera")])
def test_tera_and_mockingjay_are_one_network(tmp_path, kind, asked):
    path = peer.write(tmp_path / "a.ckpt", peer.content(kind))
    expert = mynah.load(asked, ckpt=path).eval()
    assert expert.name == asked
    assert torch.equal(
        expert([voice(8000)])["last_hidden_state"], load(kind, path)([voice(8000)])["last_hidden_state"]
    )


def test_tera_without_a_checkpoint_says_what_to_give():
    with pytest.raises(UserError, match=r"tera has no configuration of its own; give one of s3prl's checkpoints.*-k"):
        mynah.load("tera")


def test_no_configuration_in_the_file_is_said(tmp_path):
    whole = peer.content("tera")
    del whole["Config"]
    with pytest.raises(UserError, match=r"a\.ckpt: s3prl's by its Transformer, but without a configuration"):
        mynah.load("tera", ckpt=peer.write(tmp_path / "a.ckpt", whole))
