"""Captioning: where its decoder begins, its data, and what is refused."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mynah.downstream.vatex_caption.expert as expert_module
from mynah import ROOT
from mynah.downstream.feature_items import FeatureItems
from mynah.downstream.interfaces import SPLITS
from mynah.downstream.vatex_caption.expert import DownstreamExpert
from mynah.downstream.vatex_caption.model import video_positions
from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.generation import GenerationConfig, generate
from mynah.utility.albert.heads import AlbertForPreTraining
from mynah.utility.albert.masked_captions import CaptionMaskingConfig, mask_captions, pad_captions
from mynah.utility.configuration.load import load_config, to_plain
from mynah.utility.errors import UserError
from mynah.utility.video.writing import write_clip

CONFIG = ROOT / "downstream" / "vatex_caption" / "config.yaml"
PROJECTION = {"albert.img_embedding.weight", "albert.img_embedding.bias"}


def test_h0_and_the_upstreams_decoder_are_swinbert_exactly(
    build, pretrained_upstream, captioner, tokenizer, captions, clip_features, caplog
):
    with caplog.at_level(logging.INFO, logger="mynah"):
        expert = build(upstream=pretrained_upstream).eval()
    assert "weights of the caption decoder of upstream 'swinbert'" in caplog.text and "new" not in caplog.text
    assert sum(each.numel() for each in expert.parameters()) == sum(each.numel() for each in captioner.parameters())
    features, lengths = clip_features(32)
    names, said = list(captions), [texts[0] for texts in captions.values()]
    ids, valid = pad_captions([[tokenizer.encode(text).ids] for text in said], tokenizer.pad_id)
    torch.manual_seed(7)
    masked = mask_captions(ids, valid, CaptionMaskingConfig(), tokenizer)
    logits = captioner(masked.inputs, valid, features)
    embedded, _ = expert.model.embed(features, lengths)
    torch.testing.assert_close(expert.model.decoder(masked.inputs, valid, embedded), logits, atol=1e-6, rtol=0)
    torch.manual_seed(7)
    loss = expert.train()("train", features, lengths, [[text] for text in said], {}, names)
    expected = F.cross_entropy(logits[masked.targets], ids[masked.targets]) + 0.5 * captioner.sparsity()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    found = generate(captioner, features, None, GenerationConfig(max_length=12), tokenizer)
    generated = [result["caption"] for result in expert.eval().predict(features, lengths)]
    assert generated == [tokenizer.decode(best.ids) for [best] in found] and len(set(generated)) > 1


@pytest.mark.parametrize("override", ["features.layer=1", "features.layer=null", "features.normalize=true"])
def test_other_features_enter_the_upstreams_decoder_by_a_new_projection(
    build, pretrained_upstream, captioner, override
):
    expert = build(override, upstream=pretrained_upstream)
    own = expert.model.decoder.state_dict()
    assert own.keys() - captioner.state_dict().keys() == PROJECTION
    assert own["albert.img_embedding.weight"].shape == (32, 32)
    assert all(torch.equal(own[key], weight) for key, weight in captioner.state_dict().items())
    assert expert.model.positions is not None and expert.model.decoder.sparse_attention.hard


def test_features_of_another_width_than_the_decoder_are_projected(build, pretrained_upstream, clip_features):
    expert = build(upstream=dataclasses.replace(pretrained_upstream, feature_size=20)).eval()
    assert expert.model.decoder.albert.img_embedding.weight.shape == (32, 20)
    assert len(expert.predict(*clip_features(20))) == 4


def test_the_sparse_attention_of_the_upstream_is_hardened_as_configured(build, pretrained_upstream):
    expert = build("model.hard_attention=false", upstream=pretrained_upstream)
    assert not expert.model.decoder.sparse_attention.hard


def test_weights_of_the_upstream_that_do_not_fit_are_refused(build, pretrained_upstream):
    given = dict(pretrained_upstream.caption_decoder)
    given["weights"] = {key: value for key, value in given["weights"].items() if "predictions" not in key}
    with pytest.raises(UserError, match=r"caption decoder of upstream 'swinbert'.* missing: predictions"):
        build(upstream=dataclasses.replace(pretrained_upstream, caption_decoder=given))


def test_a_new_decoder_and_tokenizer_come_from_configuration_and_captions(
    build, pretrained_upstream, captions, caplog
):
    with caplog.at_level(logging.INFO, logger="mynah"):
        expert = build("model.use_upstream_decoder=false", upstream=pretrained_upstream)
    assert "random weights" in caplog.text and "trained on 8 captions" in caplog.text
    config = expert.model.decoder.config
    assert (config.num_hidden_layers, config.hidden_size, config.embedding_size) == (2, 32, 16)
    assert config.vocab_size == expert.tokenizer.vocab_size <= 60
    for text in (text for texts in captions.values() for text in texts):
        assert expert.tokenizer.decode(expert.tokenizer.encode(text).ids) == text
    assert expert.model.decoder.sparse_attention is None
    assert build("model.sparse_attention=true").model.decoder.sparse_attention.num_positions == 8


def test_an_official_folder_gives_decoder_and_tokenizer(build, tokenizer, tmp_path, caplog):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 3}
    model = AlbertForPreTraining(AlbertConfig(**sizes, embedding_size=8, vocab_size=tokenizer.vocab_size))
    model.save_pretrained(tmp_path / "albert", tokenizer)
    with caplog.at_level(logging.INFO, logger="mynah"):
        expert = build(f"model.albert={tmp_path / 'albert'}")
    assert f"weights of {tmp_path / 'albert'}" in caplog.text
    own, given = expert.model.decoder.state_dict(), model.state_dict()
    assert {key.split(".")[0] for key in own.keys() & given.keys()} == {"albert", "predictions"}
    assert own.keys() - given.keys() == PROJECTION
    assert all(torch.equal(own[key], given[key]) for key in own.keys() & given.keys())
    text = "a red star keeps growing"
    assert expert.tokenizer.encode(text) == tokenizer.encode(text)


def test_rebuilt_expert_needs_no_data_folder_or_decoder_and_says_the_same(
    build, plain_upstream, pretrained_upstream, clip_features, tmp_path
):
    starts = ((pretrained_upstream, ()), (plain_upstream, ()), (pretrained_upstream, ("features.layer=1",)))
    for upstream, overrides in starts:
        expert = build(*overrides, upstream=upstream).eval()
        torch.save({"state": expert.state(), "weights": expert.state_dict()}, tmp_path / "task.pt")
        saved = torch.load(tmp_path / "task.pt", weights_only=True)
        bare = dataclasses.replace(upstream, caption_decoder=None)
        rebuilt = build(*overrides, "datarc.file_path=/gone", upstream=bare, state=saved["state"]).eval()
        rebuilt.load_state_dict(saved["weights"], strict=True)
        features, lengths = clip_features(upstream.feature_size)
        assert rebuilt.predict(features, lengths) == expert.predict(features, lengths)
        assert rebuilt.state().keys() == expert.state().keys()


def test_embedded_features_are_dropped_out_once_whether_the_upstream_trains_or_not(
    build, captioner, pretrained_upstream, clip_features
):
    given = {**pretrained_upstream.caption_decoder}
    given["config"] = {**to_plain(captioner.config), "hidden_dropout_prob": 0.5}
    model = build(upstream=dataclasses.replace(pretrained_upstream, caption_decoder=given)).model.train()
    features, lengths = clip_features(32)
    assert 0.4 < (model.embed(features, lengths)[0] == 0).float().mean() < 0.6
    dropped = F.dropout(features, 0.5).requires_grad_()  # as an upstream in training gives them
    assert torch.equal(model.embed(dropped, lengths)[0], dropped)


def test_positions_tell_time_and_place(build):
    positions = video_positions(8, 4, 32)
    assert len(positions.unique(dim=0)) == 8
    assert torch.equal(positions[0::2, :16], positions[1::2, :16])  # the same time
    assert torch.equal(positions[:2, 16:], positions[6:, 16:])  # the same place
    features, lengths = torch.zeros(1, 8, 12), torch.tensor([8])
    assert len(build().model.embed(features, lengths)[0][0].unique(dim=0)) == 8
    assert len(build("model.video_positions=false").model.embed(features, lengths)[0][0].unique(dim=0)) == 1


def test_items_are_frames_with_all_captions_and_augmented_ones_are_random_squares(build, captioned_clips, captions):
    frames = np.random.default_rng(0).integers(0, 255, (12, 24, 32, 3), dtype=np.uint8)
    for name in captions:
        write_clip(captioned_clips / "videos" / f"{name}.mp4", frames, 12)
    expert = build()
    for split in SPLITS:
        dataset = expert.get_dataset(split)
        items = [dataset[0, index] for index in range(4)]
        assert dataset.lengths == [8] * 4 and [item["name"] for item in items] == list(captions)
        for item in items:
            assert item["signal"].shape[:3] == (8, 3, 16) and item["fixed"]
            assert item["label"] == captions[item["name"]]
    augmented = build("datarc.augment=true")
    item = augmented.get_dataset("train")[0, 0]
    again = [FeatureItems(augmented.get_dataset("train"), 1)[number, 0, True] for number in range(2)]
    assert again[0]["key"] == again[1]["key"]  # features.windows=1: the crop comes again, and
    assert all(len(each["label"]) > 1 for each in again)  # a step still draws among all captions
    assert item["signal"].shape == (8, 3, 16, 16) and not item["fixed"]
    assert augmented.get_dataset("dev")[0, 0]["fixed"]


def test_chinese_captions_are_learned_from_where_asked_for(build):
    expert = build("datarc.language=zh")
    text = expert.get_dataset("train").clips[1].captions[0]
    assert text == "一个蓝色的方块向上移动"
    assert expert.tokenizer.decode(expert.tokenizer.encode(text).ids) == text


def test_without_data_the_demo_corpus_is_used(captioned_clips, plain_upstream, monkeypatch):
    monkeypatch.setattr(expert_module, "demo_vatex", lambda: captioned_clips)
    config = load_config(DownstreamExpert.Config, files=[CONFIG], demo=True)
    assert not DownstreamExpert.has_data(config)
    DownstreamExpert.use_demo_data(config)
    assert DownstreamExpert.has_data(config)
    config.model.vocab_size = 60
    expert = DownstreamExpert(plain_upstream, config)
    assert all(len(expert.get_dataset(split)) == 4 for split in SPLITS)


def test_missing_annotation_is_named_with_what_to_do(build, captioned_clips):
    (captioned_clips / "vatex_validation_v1.0.json").unlink()
    with pytest.raises(UserError, match=r"vatex_validation_v1\.0\.json.*datarc\.dev"):
        build().get_dataset("dev")


def test_wrong_settings_are_told_all_at_once(build):
    wrong = ("generation.max_length=50", "pictures=-1", "model.sparse_weight=-1", "model.num_attention_heads=3")
    with pytest.raises(UserError) as error:
        build(*wrong, "datarc.language=de")
    for part in (
        "generation.max_length: must be less than masking.max_length (50)",
        "pictures: expected 0 or more, got -1",
        "model.sparse_weight",
        "model.num_attention_heads",
        "datarc.language",
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match="num_beams"):
        build("generation.num_beam=2")


def test_captions_longer_than_the_decoder_has_positions_for_are_refused(build):
    with pytest.raises(UserError, match=r"masking\.max_length: .* 512 word pieces, got 600"):
        build("masking.max_length=600")


def test_a_folder_that_is_no_albert_is_named(build, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path / "nothing")):
        build(f"model.albert={tmp_path / 'nothing'}")
