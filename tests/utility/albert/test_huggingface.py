"""Folders: what Hugging Face writes we read, what we write it reads; wrong ones are one clear error."""

import json
import logging

import pytest
import torch
import transformers
from torch import Tensor

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.heads import (
    AlbertForPreTraining,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
)
from mynah.utility.albert.huggingface import (
    convert_from_huggingface,
    convert_to_huggingface,
    is_tied,
    load_folder,
    load_parts,
    save_pretrained,
)
from mynah.utility.albert.model import AlbertModel
from mynah.utility.errors import UserError
from tests.utility.albert.peers import VARIANTS, build_peer, close, texts

CLASSES = {
    "Model": AlbertModel,
    "ForPreTraining": AlbertForPreTraining,
    "ForSequenceClassification": AlbertForSequenceClassification,
    "ForQuestionAnswering": AlbertForQuestionAnswering,
}


def answers(model, mask: bool) -> list[Tensor]:
    """All that a model, ours or theirs, gives for some text, but loss and states within."""
    ids, valid, segments = texts()
    output = model.eval()(ids, valid if mask else valid.long(), segments)
    names = (
        ("last_hidden_state", "last_hidden_state"),
        ("pooler_output", "pooler_output"),
        ("prediction_logits", "prediction_logits"),
        ("sop_logits", "sop_logits"),
        ("sop_logits", "seq_relationship_logits"),
        ("logits", "logits"),
        ("start_logits", "start_logits"),
        ("end_logits", "end_logits"),
    )
    found = [getattr(output, name, None) for name in dict.fromkeys(pair[0 if mask else 1] for pair in names)]
    found = [answer for answer in found if answer is not None]
    return [answer[valid] if answer.shape[:2] == valid.shape else answer for answer in found]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("what", CLASSES)
@torch.no_grad()
def test_every_class_goes_both_ways(what, variant, tmp_path):
    peer = build_peer(variant, what)
    peer.save_pretrained(tmp_path / "theirs")
    ours = CLASSES[what].from_pretrained(tmp_path / "theirs")
    theirs_said, ours_said = answers(peer, mask=False), answers(ours, mask=True)
    assert len(theirs_said) == len(ours_said) >= 1
    assert all(close(mine, peers) for mine, peers in zip(ours_said, theirs_said, strict=True))

    ours.save_pretrained(tmp_path / "ours")
    again, report = type(peer).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(close(one, two) for one, two in zip(answers(again, mask=False), theirs_said, strict=True))
    automatic = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert type(automatic) is type(peer.config) and automatic.architectures == [type(peer).__name__]


@pytest.mark.parametrize("variant", ["albert", "bert"])
@torch.no_grad()
def test_pytorch_files_are_read(variant, tmp_path):
    """As the official ones of 2019: position ids, the output layer written out, BERT's gamma and beta."""
    peer = build_peer(variant, "ForPreTraining")
    head = "cls.predictions" if variant == "bert" else "predictions"
    weights = {f"{variant}.embeddings.position_ids": torch.arange(20)[None], **peer.state_dict()}
    assert f"{head}.decoder.weight" in weights and f"{head}.decoder.bias" in weights
    if variant == "bert":
        del weights["cls.predictions.decoder.bias"]
        weights = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
            for name, weight in weights.items()
        }
    torch.save(weights, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(peer.config.to_dict()))
    ours = answers(AlbertForPreTraining.from_pretrained(str(tmp_path)), mask=True)
    assert all(close(mine, peers) for mine, peers in zip(ours, answers(peer, mask=False), strict=True))


@pytest.mark.parametrize("variant", ["albert, groups and inner layers", "bert", "bert, untied"])
def test_a_captioning_model_begins_with_published_weights(variant, tmp_path, caplog):
    peer = build_peer(variant, "ForPreTraining")
    peer.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content.pop("tie_word_embeddings", None)  # the weights say it as well
    (tmp_path / "config.json").write_text(json.dumps(content))
    with caplog.at_level(logging.INFO):
        model = load_folder(tmp_path, AlbertForImageCaptioning, num_video_positions=4)
    assert "with new random weights: albert.img_embedding, sparse_attention" in caplog.text
    assert "not part of this model: left out: sentence_order" in caplog.text
    assert ("scored by weights of their own" in caplog.text) is ("untied" in variant)
    theirs = convert_from_huggingface(peer.state_dict(), model.config)
    for name, weight in model.state_dict().items():
        if not name.startswith(("albert.img_embedding", "sparse_attention")):
            assert torch.equal(weight, theirs[name])
    assert ("predictions.decoder.weight" in model.state_dict()) is ("untied" in variant)


@pytest.mark.parametrize("model", [AlbertModel, AlbertForPreTraining])
def test_a_weight_that_has_no_place_is_refused(model, tmp_path):
    peer = build_peer("albert", "ForPreTraining")
    peer.save_pretrained(tmp_path)
    torch.save({**peer.state_dict(), "foo.weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"foo\.weight"):
        load_folder(tmp_path, model)


def test_what_is_left_out_and_what_begins_anew_is_said(tmp_path, caplog):
    build_peer("albert", "ForQuestionAnswering").save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        AlbertForSequenceClassification.from_pretrained(tmp_path)
    warning, line = caplog.records
    assert warning.levelname == "WARNING" and "random weights: albert.pooler, classifier" in warning.message
    assert line.levelname == "INFO" and "left out: qa_outputs" in line.message


def test_swinberts_names_are_known():
    """BERT under trans_encoder., with an image embedding, the names of 2019, and an output layer of its own."""
    config = AlbertConfig.from_huggingface(
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        | {"vocab_size": 40, "max_position_embeddings": 20, "img_feature_dim": 6, "tie_word_embeddings": False}
    )
    own = AlbertForImageCaptioning(config)
    released = {f"trans_encoder.{name}": weight for name, weight in swinbert_state(16, 24, 2, 40, 20, 6).items()}
    assert not is_tied(released)
    beside = {"swin.patch_embed.proj.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}
    converted = convert_from_huggingface({**beside, **released}, config, prefix="trans_encoder.")
    load_parts(own, converted, "model.bin")
    layer = own.albert.encoder.groups[1][0]
    name = "trans_encoder.bert.encoder.layer.1.{}.weight"
    three = [released[name.format(f"attention.self.{part}")] for part in ("query", "key", "value")]
    assert torch.equal(layer.attention.query_key_value.weight, torch.cat(three))
    assert torch.equal(layer.output.weight, released[name.format("output.dense")])
    assert torch.equal(own.albert.img_embedding.bias, released["trans_encoder.bert.img_embedding.bias"])
    assert torch.equal(own.predictions.decoder.weight, released["trans_encoder.cls.predictions.decoder.weight"])
    assert torch.equal(own.predictions.bias, released["trans_encoder.cls.predictions.bias"])
    tied = config.replace(tie_word_embeddings=True)
    with pytest.raises(UserError, match="tie_word_embeddings"):
        convert_from_huggingface(released, tied, prefix="trans_encoder.")


def swinbert_state(
    hidden: int, inside: int, layers: int, words: int, positions: int, image: int
) -> dict[str, Tensor]:
    def linear(name: str, width: int, given: int) -> dict[str, Tensor]:
        return {f"{name}.weight": torch.randn(width, given), f"{name}.bias": torch.randn(width)}

    def norm(name: str) -> dict[str, Tensor]:
        return {f"{name}.LayerNorm.weight": torch.randn(hidden), f"{name}.LayerNorm.bias": torch.randn(hidden)}

    sizes = {"word": words, "position": positions, "token_type": 2}
    state = {f"bert.embeddings.{name}_embeddings.weight": torch.randn(size, hidden) for name, size in sizes.items()}
    state |= norm("bert.embeddings")
    for index in range(layers):
        layer = f"bert.encoder.layer.{index}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            state |= linear(f"{layer}.attention.{part}", hidden, hidden)
        state |= norm(f"{layer}.attention.output") | linear(f"{layer}.intermediate.dense", inside, hidden)
        state |= linear(f"{layer}.output.dense", hidden, inside) | norm(f"{layer}.output")
    state |= linear("bert.pooler.dense", hidden, hidden) | linear("bert.img_embedding", hidden, image)
    state |= linear("cls.predictions.transform.dense", hidden, hidden) | norm("cls.predictions.transform")
    return state | {
        "cls.predictions.decoder.weight": torch.randn(words, hidden),
        "cls.predictions.bias": torch.randn(words),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_go_there_and_back(variant):
    peer = build_peer(variant, "ForPreTraining")
    config = AlbertConfig.from_huggingface(peer.config.to_dict())
    theirs = peer.state_dict()
    head = "cls.predictions" if variant.startswith("bert") else "predictions"
    if config.tie_word_embeddings:
        del theirs[f"{head}.decoder.weight"], theirs[f"{head}.decoder.bias"]
    else:
        theirs[f"{head}.bias"] = theirs[f"{head}.decoder.bias"]  # the one that untied models use
    back = convert_to_huggingface(convert_from_huggingface(theirs, config), config)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], weight) for name, weight in theirs.items())


@pytest.fixture
def folder(tmp_path):
    save_pretrained(AlbertForQuestionAnswering(tiny()), tmp_path / "model")
    return tmp_path / "model"


def tiny() -> AlbertConfig:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 2}
    return AlbertConfig(vocab_size=10, embedding_size=4, max_position_embeddings=6, **sizes)


def test_files_are_whole_or_not_there(folder):
    before = (folder / "model.safetensors").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    save_pretrained(AlbertForQuestionAnswering(tiny()), folder)  # over an earlier one
    assert (folder / "model.safetensors").read_bytes() != before
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "model: no config.json there"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not readable as JSON"),
        (lambda folder: (folder / "config.json").write_text('{"hidden_act": "x"}'), "config.json: hidden_act: 'x'"),
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors nor pytorch_model.bin"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "model.safetensors.index.json"),
            "weights in several files are not supported",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:900]
            ),
            r"model.safetensors: not readable \(900 bytes",
        ),
    ],
)
def test_a_wrong_folder_is_one_clear_error(folder, spoil, message):
    spoil(folder)
    with pytest.raises(UserError, match=message):
        AlbertForQuestionAnswering.from_pretrained(folder)


def test_a_pytorch_file_that_is_none_is_one_clear_error(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"pytorch_model.bin: not readable \(14 bytes"):
        AlbertForQuestionAnswering.from_pretrained(folder)
    torch.save([1, 2], folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds something else than weights by name"):
        AlbertForQuestionAnswering.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("qa_outputs.bias"), "1 missing: qa_outputs.bias"),
        (lambda weights: weights.update({"albert.extra": torch.zeros(1)}), "1 not expected: albert.extra"),
        (lambda weights: weights.pop("albert.embeddings.LayerNorm.weight"), "missing: albert.embeddings.norm.weight"),
        (
            lambda weights: weights.pop("albert.encoder.albert_layer_groups.0.albert_layers.0.attention.key.weight"),
            "only 2 are there",
        ),
        (
            lambda weights: weights.update({"qa_outputs.bias": torch.zeros(3)}),
            r"of another shape: qa_outputs.bias \(3,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, message):
    weights = convert_to_huggingface(AlbertForQuestionAnswering(tiny()).state_dict(), tiny())
    change(weights)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=message):
        AlbertForQuestionAnswering.from_pretrained(folder)


def test_a_pytorch_file_cannot_run_code(folder):
    class Evil:
        def __reduce__(self):
            return (open, (str(folder / "ran"), "w"))

    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="not readable"):
        AlbertForQuestionAnswering.from_pretrained(folder)
    assert not (folder / "ran").exists()
