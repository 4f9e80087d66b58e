"""Captioning: what a training step learns from, and the captions that come out."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch

from mynah.utility.albert.generation import generate
from mynah.utility.errors import UserError


def test_training_on_four_clips_ends_in_their_captions(build, pretrained_upstream, captions, clip_features):
    expert = build("features.layer=1", upstream=dataclasses.replace(pretrained_upstream, feature_size=12))
    features, lengths = clip_features()
    for weight in (each for each in expert.parameters() if each.dim() > 1):
        weight.data.mul_(0.1)  # from so large weights it would learn slowly
    optimizer = torch.optim.AdamW(expert.parameters(), lr=1e-2)
    labels = [texts[:1] for texts in captions.values()]
    for step in range(250):
        torch.manual_seed(step)
        loss = expert("train", features, lengths, labels, {}, list(captions))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(expert.parameters(), 1.0)
        optimizer.step()
    results = json.loads(json.dumps(expert.eval().predict(features, lengths)))
    assert [result["caption"] for result in results] == [text for [text] in labels]
    assert all(0.8 < result["confidence"] <= 1 for result in results)


def test_captions_do_not_depend_on_batch_or_padding(build, clip_features):
    expert = build().eval()
    features, lengths = clip_features()[0], torch.tensor([8, 3, 5, 8])
    for row, length in enumerate(lengths.tolist()):
        features[row, length:] = float("nan")
    together = expert.predict(features, lengths)
    assert len({result["caption"] for result in together}) > 1
    for row, length in enumerate(lengths.tolist()):
        [alone] = expert.predict(features[row : row + 1, :length], lengths[row : row + 1])
        assert alone["caption"] == together[row]["caption"]
        assert alone["confidence"] == pytest.approx(together[row]["confidence"], abs=1e-5)


def test_dev_loss_and_caption_of_a_clip_are_the_same_alone_and_in_any_batch_and_pass(build, captions, clip_features):
    expert = build().eval()
    (features, lengths), names, labels = clip_features(), list(captions), list(captions.values())
    records: dict[str, list] = {}
    mean = expert("dev", features, lengths, labels, records, names)
    assert mean.item() == pytest.approx(np.mean(records["loss"]), rel=1e-5)
    for row, name in enumerate(names):
        torch.manual_seed(row)
        alone: dict[str, list] = {}
        expert("dev", features[row : row + 1], lengths[:1], labels[row : row + 1], alone, [name])
        assert alone["loss"][0] == pytest.approx(records["loss"][row], rel=1e-5)
        assert alone["prediction"] == records["prediction"][row : row + 1]
    other: dict[str, list] = {}
    expert("dev", features[:1], lengths[:1], labels[:1], other, ["another name"])
    assert other["loss"][0] != pytest.approx(records["loss"][0], rel=1e-5)


def test_training_draws_other_masks_each_time_and_evaluation_never(build, captions, clip_features):
    expert = build()
    (features, lengths), names = clip_features(), list(captions)
    labels = [texts[:1] for texts in captions.values()]

    def losses(split):
        return {expert(split, features, lengths, labels, {}, names).item() for _ in range(3)}

    assert len(losses("train")) == 3
    expert.eval()
    assert len(losses("dev")) == 1 and len(losses("train")) == 1  # -m evaluate --split train


def test_training_draws_as_many_captions_of_a_clip_as_configured(build, captions, clip_features, monkeypatch):
    expert = build("datarc.captions_per_clip=2")
    seen = []
    encode = expert.tokenizer.encode
    monkeypatch.setattr(expert.tokenizer, "encode", lambda text, **how: seen.append(text) or encode(text, **how))
    for step in range(20):
        torch.manual_seed(step)
        expert("train", *clip_features(), list(captions.values()), {}, list(captions))
    counts = Counter(seen)
    assert counts["the green triangle is shrinking slowly"] == counts["a red circle moves to the right"] == 20
    blue = [counts[text] for text in captions["v_blue"]]
    assert sum(blue) == 40 and all(5 < count < 20 for count in blue)


def test_clips_with_fewer_captions_than_others_count_by_their_own(build, captions, clip_features):
    # With everything masked, training and dev ask for the same word pieces.
    everything = "masking.mask_proportion=1", "masking.mask_token_probability=1", "masking.random_token_probability=0"
    expert = build(*everything, "datarc.captions_per_clip=3").eval()
    (features, lengths), names, labels = clip_features(), list(captions), list(captions.values())
    records: dict[str, list] = {}
    expert("dev", features, lengths, labels, records, names)
    loss = expert.train()("train", features, lengths, labels, {}, names)
    pieces = [sum(len(expert.tokenizer.encode(text).ids) - 1 for text in texts) for texts in labels]
    assert loss.item() == pytest.approx(np.average(records["loss"], weights=pieces), rel=1e-5)


def test_alternatives_are_the_n_best_of_the_beams(build, clip_features):
    expert = build("generation.num_beams=3", "generation.num_return=3").eval()
    features, lengths = clip_features(count=1)
    [result] = json.loads(json.dumps(expert.predict(features, lengths)))
    embedded, _ = expert.model.embed(features, lengths)
    [found] = generate(expert.model.decoder, embedded, None, expert.config.generation, expert.tokenizer)
    said = [result["caption"], *(each["caption"] for each in result["alternatives"])]
    assert said == [expert.tokenizer.decode(each.ids) for each in found] and len(said) == 3
    line = expert.format_prediction(result)
    assert all(each in line for each in said) and f"{100 * result['confidence']:.0f} %" in line and "\n" not in line


def test_generation_obeys_its_settings(build, clip_features):
    expert = build("generation.min_length=5", "generation.max_length=6").eval()
    features, lengths = clip_features()
    embedded, valid = expert.model.embed(features, lengths)
    found = generate(expert.model.decoder, embedded, valid, expert.config.generation, expert.tokenizer)
    assert all(5 <= len(best.ids) <= 6 for [best] in found)
    captions = [result["caption"] for result in expert.predict(features, lengths)]
    assert captions == [expert.tokenizer.decode(best.ids) for [best] in found]


def test_features_that_are_not_finite_are_told(build):
    with pytest.raises(UserError, match="NaN"):
        build().eval().predict(torch.full((1, 8, 12), float("nan")), torch.tensor([8]))
