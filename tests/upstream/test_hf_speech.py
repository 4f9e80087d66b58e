"""hf_speech against transformers itself, on tiny random models of each family."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from mynah.downstream.build import TaskOptions
from mynah.downstream.inference import predict
from mynah.downstream.training import train
from mynah.plugins import find_plugins, import_plugin
from mynah.utility.errors import UserError

transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "initializer_range": 0.2,
}  # fmt: skip
CONVOLUTIONS = {"conv_dim": [16] * 7}
WAVEFORM = {
    "wav2vec2 group": ("wav2vec2", {**TINY, **CONVOLUTIONS, "feat_extract_norm": "group"}),
    "wav2vec2 layer": (
        "wav2vec2",
        {**TINY, **CONVOLUTIONS, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    ),
    "hubert group": ("hubert", {**TINY, **CONVOLUTIONS, "feat_extract_norm": "group"}),
    "hubert layer": ("hubert", {**TINY, **CONVOLUTIONS, "feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "wavlm group": ("wavlm", {**TINY, **CONVOLUTIONS, "feat_extract_norm": "group"}),
    "wavlm layer": ("wavlm", {**TINY, **CONVOLUTIONS, "feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "data2vec": ("data2vec-audio", {**TINY, **CONVOLUTIONS, "num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 5}),
}
W2V_BERT = ("wav2vec2-bert", {**TINY, "feature_projection_input_dim": 160})
WHISPER = (
    "whisper",
    {
        "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_layers": 1,
        "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "vocab_size": 50, "max_source_positions": 100,
        "num_mel_bins": 80, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    },
)  # fmt: skip
LENGTHS = [9000, 16000, 9000, 4321, 700]


def extractor_of(kind):
    if kind == "whisper":
        return transformers.WhisperFeatureExtractor(chunk_length=2)
    if kind == "wav2vec2-bert":
        return transformers.SeamlessM4TFeatureExtractor()
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=True)


def save(folder, kind, settings):
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **settings)).eval()
    for module in model.modules():  # as after training: norms that are not the identity
        if isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm) and module.bias is not None:
            torch.nn.init.normal_(module.bias, std=0.3)
    model.save_pretrained(folder)
    extractor_of(kind).save_pretrained(folder)
    return model


def load(folder):
    return import_plugin(find_plugins("upstream")["hf_speech"], "hubconf").hf_speech(str(folder)).eval()


def signals():
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(length, generator=generator) + 0.02 for length in LENGTHS]


@pytest.fixture(scope="module", params=[*WAVEFORM, "w2v-bert", "whisper"])
def pair(request, tmp_path_factory):
    """(the upstream, their model, its kind)."""
    kind, settings = {**WAVEFORM, "w2v-bert": W2V_BERT, "whisper": WHISPER}[request.param]
    folder = tmp_path_factory.mktemp("model")
    theirs = save(folder, kind, settings)
    return load(folder), theirs, kind


@torch.no_grad()
def test_single_inputs_have_transformers_own_states(pair):
    upstream, theirs, kind = pair
    for signal in signals():
        inputs = extractor_of(kind)(signal.numpy(), sampling_rate=16000, return_tensors="pt")
        if kind == "whisper":
            expected = theirs.get_encoder()(inputs["input_features"], output_hidden_states=True).hidden_states
            expected = [state[:, : -(-len(signal) // 320)] for state in expected]
        else:
            expected = theirs(**inputs, output_hidden_states=True).hidden_states
        output = upstream([signal])
        assert len(output["hidden_states"]) == len(expected) == upstream.num_hidden_states
        count = output["lengths"].item()
        assert count == upstream.count_positions(len(signal))
        for own, state in zip(output["hidden_states"], expected, strict=True):
            torch.testing.assert_close(own, state[:, :count], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_input_has_the_same_states_alone_and_in_any_batch(pair):
    upstream, _, _ = pair
    together = upstream(signals())
    for row, signal in enumerate(signals()):
        alone = upstream([signal])
        count = alone["lengths"].item()
        assert together["lengths"][row] == count
        for state, own in zip(together["hidden_states"], alone["hidden_states"], strict=True):
            torch.testing.assert_close(state[row, :count], own[0], atol=2e-5, rtol=1e-5)
            assert not state[row, count:].any()


def test_it_is_built_again_from_its_arguments(pair):
    upstream, _, _ = pair
    arguments = upstream.build_arguments()
    entry = import_plugin(find_plugins("upstream")["hf_speech"], "hubconf").hf_speech
    again = entry(**arguments).eval()
    again.load_state_dict(upstream.state_dict())
    with torch.no_grad():
        one, other = upstream(signals()[:2]), again(signals()[:2])
    assert torch.equal(one["last_hidden_state"], other["last_hidden_state"])
    assert again.build_arguments() == arguments


@torch.no_grad()
def test_whisper_reads_more_than_its_window_in_parts(tmp_path):
    save(tmp_path, *WHISPER)
    upstream = load(tmp_path)
    long = 0.1 * torch.randn(2 * 32000 + 5000, generator=torch.Generator().manual_seed(2))
    whole = upstream([long])["last_hidden_state"][0]
    parts = [upstream([part])["last_hidden_state"][0] for part in long.split(32000)]
    torch.testing.assert_close(whole, torch.cat(parts), atol=2e-5, rtol=1e-5)


def test_dropout_of_layers_and_masking_of_their_training_are_off(tmp_path):
    save(tmp_path, "wav2vec2", {**WAVEFORM["wav2vec2 layer"][1], "layerdrop": 0.5, "apply_spec_augment": True})
    config = load(tmp_path).encoder.model.config
    assert config.layerdrop == 0 and not config.apply_spec_augment


def test_mistakes_are_one_message(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for source, said in (
        (tmp_path / "empty", "not a model of Hugging Face that can be read"),
        (tmp_path / "file", "a file; hf_speech takes the folder"),
    ):
        with pytest.raises(UserError, match=said):
            load(source)
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="its model_type is 'bert'; hf_speech knows wav2vec2"):
        load(tmp_path / "bert")
    entry = import_plugin(find_plugins("upstream")["hf_speech"], "hubconf").hf_speech
    with pytest.raises(UserError, match="give a model's folder or its id in the hub"):
        entry()
    for kind, settings in (W2V_BERT, WHISPER):
        with pytest.raises(UserError, match=f"a {kind} reads what its feature extractor makes"):
            entry(model_config={"model_type": kind, **settings}, random_weights=True)
    save(tmp_path / "telephone", *W2V_BERT)
    file = tmp_path / "telephone" / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sampling_rate": 8000}))
    with pytest.raises(UserError, match="waveforms of 8000 Hz"):
        load(tmp_path / "telephone")


def test_the_shortest_waveform_has_a_position(pair):
    upstream, _, _ = pair
    shortest = upstream.min_samples
    states = upstream([torch.randn(shortest)])["last_hidden_state"]
    assert states.shape[1] == upstream.count_positions(shortest) >= 1
    assert upstream.count_positions(shortest - 1) == 0 or shortest == 400
    with pytest.raises(ValueError, match="too short"):
        upstream([torch.randn(shortest - 1)])


def test_convolutions_of_another_stride_make_other_positions(tmp_path):
    kind, settings = next(each for each in WAVEFORM.values() if each[0] == "wav2vec2")
    convolutions = {"conv_dim": [16, 16], "conv_kernel": [10, 4], "conv_stride": [5, 4], "num_feat_extract_layers": 2}
    save(tmp_path / "quick", kind, {**settings, **convolutions})
    upstream = load(tmp_path / "quick")
    assert upstream.get_downsample_rates("hidden_states") == 20 and upstream.min_samples == 10 + 3 * 5
    assert upstream([torch.randn(2000)])["last_hidden_state"].shape[1] == upstream.count_positions(2000) == 99


def test_code_in_a_models_folder_is_not_run(tmp_path):
    save(tmp_path, *WAVEFORM["hubert group"])
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["auto_map"] = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    settings["model_type"] = "mine"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="not a model of Hugging Face that can be read"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_without_transformers_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs the package 'transformers'.*pip install 'mynah\[hub\]'"):
        load(tmp_path)


def test_a_task_is_trained_on_it_and_predicts_without_the_models_folder(tmp_path, corpus):
    save(tmp_path / "model", *WAVEFORM["hubert group"])
    (tmp_path / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    values = [
        f"datarc.file_path={corpus}",
        "trainer.max_steps=2",
        "dataloader.num_workers=0",
        "scheduler.name=constant",
    ]
    options = {"root": tmp_path, "name": "sid", "upstream": "hf_speech", "downstream": "voxceleb1_speaker"}
    train(TaskOptions(**options, checkpoint=str(tmp_path / "model"), overrides=values))
    shutil.rmtree(tmp_path / "model")
    [result] = predict(TaskOptions(resume=str(tmp_path / "sid")), [corpus / "speaker0" / "chapter" / "0.wav"])
    probabilities = [each["probability"] for each in result.result["speakers"]]
    assert np.isclose(sum(probabilities), 1, atol=1e-4)
