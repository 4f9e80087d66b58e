"""Captioning: scores with what they rest on, signs of collapse, tables and pictures."""

import dataclasses
import json
import logging
import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

import mynah.utility.captions.scores
from mynah.downstream.vatex_caption.decoders import num_steps
from mynah.downstream.vatex_caption.pictures import CaptionPicture, draw_caption, words_over_time
from mynah.utility.albert.tokenizer import AlbertTokenizer
from mynah.utility.captions.java import JavaFailed
from mynah.utility.video.writing import write_clip

PREDICTIONS = [
    "the circle is going right",
    "a square goes up and up",
    "the triangle",
    "the star becomes larger",
]


@pytest.fixture(autouse=True)
def meteor_fails(monkeypatch):
    """METEOR takes ten seconds to start; here it never does."""

    def fail(*arguments):
        raise JavaFailed("no METEOR in this test")

    monkeypatch.setattr(mynah.utility.captions.scores, "meteor", fail)


@pytest.fixture
def records(captions) -> dict[str, list]:
    return {
        "name": list(captions),
        "prediction": list(PREDICTIONS),
        "confidence": [0.5, 0.25, 0.75, 1.0],
        "references": list(captions.values()),
        "loss": [1.0, 2.0, 3.0, 4.0],
    }


def peer_scores(captions) -> tuple[float, list[float], float]:
    """CIDEr, that of each clip, and BLEU-4, of words without punctuation."""
    said = {name: [text] for name, text in zip(captions, PREDICTIONS, strict=True)}
    cider, each = Cider().compute_score(captions, said)
    return float(cider), list(each), Bleu(4).compute_score(captions, said, verbose=0)[0][3]


@pytest.mark.parametrize("frames", range(1, 12))
def test_steps_of_time_are_those_that_video_swin_has(plain_upstream, frames):
    """Pairs of frames, the last one filled up; four places each."""
    steps = len(range(0, frames, 2))
    upstream = dataclasses.replace(plain_upstream, frames_per_clip=frames, num_positions=4 * steps)
    assert num_steps(upstream) == steps


def test_metrics_are_scores_with_loss_and_covered_share(build, records, captions):
    metrics = build().log_records("test", records)
    cider, _, bleu = peer_scores(captions)
    assert metrics["cider"] == pytest.approx(cider) and metrics["bleu_4"] == pytest.approx(bleu)
    assert metrics["loss"] == 2.5 and metrics["distinct"] == 1.0
    assert metrics["coverage"] == 4 / 5  # one of those that the test split lists is not there
    assert metrics.keys() == {
        "bleu_1",
        "bleu_2",
        "bleu_3",
        "bleu_4",
        "rouge_l",
        "cider",
        "loss",
        "coverage",
        "distinct",
    }
    assert build().log_records("dev", records)["coverage"] == 1.0


def test_clips_that_could_not_be_decoded_are_not_covered(build, records):
    fewer = {key: column[:2] for key, column in records.items()}
    assert build().log_records("dev", fewer)["coverage"] == 2 / 4


def test_dev_is_scored_without_java_while_a_run_trains_and_with_it_otherwise(
    build, records, captions, clip_features, monkeypatch
):
    asked = []
    ptb = mynah.utility.captions.scores.ptb_tokenize
    monkeypatch.setattr(mynah.utility.captions.scores, "ptb_tokenize", lambda texts: asked.append(1) or ptb(texts))
    expert = build()
    thorough = expert.log_records("dev", records)
    assert len(asked) == 1
    expert("train", *clip_features(), list(captions.values()), {}, list(captions))
    quick = expert.log_records("dev", dict(records))
    assert len(asked) == 1
    assert quick == pytest.approx(thorough)  # words so plain that all tokenizers agree on them
    expert.log_records("test", records)
    assert len(asked) == 2


def test_one_clip_has_a_cider_of_zero(build, records):
    one = {key: column[:1] for key, column in records.items()}
    assert build().log_records("dev", one)["cider"] == 0.0


def test_json_report_holds_everything(build, records, captions, tmp_path):
    expert = build("pictures=0")
    metrics = expert.log_records("test", records)
    paths = expert.write_report("test", records, tmp_path)
    assert [path.name for path in paths] == ["predictions.json", "predictions.md"]
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    assert (content["split"], content["clips"], content["listed"], content["coverage"]) == ("test", 4, 5, 0.8)
    assert content["tokenizer"].startswith("PTB") and content["left_out"] == {"METEOR": "no METEOR in this test"}
    assert content["scores"]["CIDEr"] == metrics["cider"]
    _, each, _ = peer_scores(captions)
    for index, row in enumerate(content["predictions"]):
        assert row["name"] == records["name"][index] and row["references"] == records["references"][index]
        assert (row["prediction"], row["confidence"]) == (PREDICTIONS[index], records["confidence"][index])
        assert row["loss"] == records["loss"][index]
        assert row["scores"]["CIDEr"] == pytest.approx(each[index])


def test_table_can_be_read_and_names_what_the_scores_rest_on(build, records, captions, tmp_path):
    records["name"][1] = "a|b"
    _, table = build("pictures=0").write_report("test", records, tmp_path)
    lines = table.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Captions of test: 4 of 5 listed clips (80.0 %)"
    assert any("PTB" in line for line in lines) and any("METEOR: no METEOR in this test" in line for line in lines)
    rows = [line for line in lines if line.startswith(("| v_", "| a"))]
    _, each, _ = peer_scores(captions)
    order = sorted(range(4), key=lambda index: -each[index])
    assert [row.split(" | ")[0] for row in rows] == [
        ("| v_red", "| a\\|b", "| v_green", "| v_star")[i] for i in order
    ]
    heading = lines.index("| clip | CIDEr | confidence | caption | references |")
    assert {row.replace("\\|", "").count("|") for row in lines[heading:] if row} == {6}
    assert "covered" in "".join(lines[:heading]) and "4 of 5 listed clips" in lines[heading - 2]


def test_captions_that_are_all_alike_are_told_as_collapse(build, records, caplog):
    expert = build()
    with caplog.at_level(logging.WARNING, logger="mynah"):
        expert.log_records("dev", records)
        assert "the same" not in caplog.text
        metrics = expert.log_records("dev", {**records, "prediction": ["a square"] * 4})
    assert "dev: 100 % of the 4 captions are the same, 'a square'" in caplog.text
    assert metrics["distinct"] == 0.25
    caplog.clear()
    expert.log_records("dev", {**records, "prediction": [""] * 4})
    assert "with no word in it" in caplog.text


def test_losses_that_are_not_finite_are_told(build, records, caplog):
    with caplog.at_level(logging.WARNING, logger="mynah"):
        metrics = build().log_records("dev", {**records, "loss": [1.0, math.nan, math.nan, 1.0]})
    assert "the loss of 2 of 4 clips is not finite, such as v_blue" in caplog.text
    assert math.isnan(metrics["loss"]) and math.isfinite(metrics["cider"])


def test_chinese_is_scored_by_characters(build, tmp_path):
    expert = build("datarc.language=zh", "pictures=0")
    records = {
        "name": ["v_red", "v_blue"],
        "prediction": ["红色的圆", "方块向上"],
        "confidence": [0.5, 0.5],
        "references": [["一个红色的圆向右移动"], ["方块向上"]],
        "loss": [1.0, 1.0],
    }
    # Four of four characters are right in each, so what BLEU-1 lacks is the brevity of 8 for 14.
    assert expert.log_records("dev", records)["bleu_1"] == pytest.approx(math.exp(1 - 14 / 8), rel=1e-6)
    path, _ = expert.write_report("dev", records, tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["tokenizer"] == "characters" and "红色的圆" in path.read_text(encoding="utf-8")


# -- pictures ----------------------------------------------------------------------------------------------------


def test_attention_of_words_is_that_of_their_pieces_over_steps(captions):
    tokenizer = AlbertTokenizer.train([text for texts in captions.values() for text in texts], 60)
    text = "the green triangle is shrinking"
    ids = tokenizer.encode(text).ids[1:-1]
    attention = torch.rand(len(ids), 8, generator=torch.Generator().manual_seed(0))
    attention /= attention.sum(1, keepdim=True)
    words, shares = words_over_time(tokenizer, ids, attention, num_steps=4)
    assert words == text.split() and len(ids) > len(words)
    word_of = [end - 1 for end in np.cumsum([piece.startswith("▁") for piece in tokenizer.tokenize(text)])]
    for word, row in enumerate(shares):
        own = [step for step, of in enumerate(word_of) if of == word]
        steps = [sum(float(attention[piece, 2 * step : 2 * step + 2].sum()) for piece in own) for step in range(4)]
        assert row == pytest.approx([share / len(own) for share in steps], rel=1e-5)
        assert sum(row) == pytest.approx(1.0, rel=1e-5)


def test_without_spaces_every_piece_is_a_word_and_unknown_grids_keep_their_positions(build):
    tokenizer = build("datarc.language=zh").tokenizer
    ids = tokenizer.encode("方块向上").ids[1:-1]
    words, shares = words_over_time(tokenizer, ids, torch.full((len(ids), 7), 1 / 7), num_steps=4)
    assert "".join(words) == "方块向上" and len(words) == len(ids) and len(shares[0]) == 7
    assert words_over_time(tokenizer, [], torch.zeros(0, 8), num_steps=4) == ([], [])


def test_words_and_their_attention_are_recorded_for_the_clips_that_are_drawn(build, captions, clip_features):
    expert = build("pictures=2").eval()
    (features, lengths), names, labels = clip_features(), list(captions), list(captions.values())
    records: dict[str, list] = {}
    for row, name in enumerate(names):
        expert("test", features[row : row + 1], lengths[:1], [labels[row]], records, [name])
    assert [each is not None for each in records["attention"]] == [True, True, False, False]
    for index, (words, shares) in enumerate(json.loads(json.dumps(records["attention"][:2]))):
        pieces = expert.tokenizer.decode(expert.tokenizer.encode(records["prediction"][index]).ids).split()
        assert Counter(words) == Counter(pieces) or len(pieces) == 1
        assert np.array(shares).shape == (len(words), 4)  # the upstream's steps of time
        np.testing.assert_allclose(np.sum(shares, 1), 1.0, rtol=1e-5)
    expert.has_trained = True
    quick: dict[str, list] = {}
    expert("dev", features, lengths, labels, quick, names)
    assert "attention" not in quick


def test_report_draws_the_first_clips(build, captioned_clips, captions, clip_features, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (12, 24, 32, 3), dtype=np.uint8)
    write_clip(captioned_clips / "videos" / "v_red.mp4", frames, 12)
    expert = build("pictures=2").eval()
    records: dict[str, list] = {}
    expert("test", *clip_features(), list(captions.values()), records, list(captions))
    *_, picture = expert.write_report("test", records, tmp_path)
    assert picture.name == "clip_1_v_red.png" and picture.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("clip_2*"))  # it cannot be decoded


def test_a_prediction_is_drawn_on_demand(build, clip_features, tmp_path):
    features, lengths = clip_features(count=1)
    signal = torch.randint(0, 256, (8, 3, 24, 20), dtype=torch.uint8)
    build().eval().draw_prediction(features, lengths, signal, tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_picture_shows_frames_in_order_above_their_times(plain_upstream, tmp_path):
    colors = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], dtype=torch.uint8)
    clip = colors.repeat_interleave(2, 0)[:, :, None, None].expand(8, 3, 20, 20)
    shares = [[0.0, 0.0, 1.0, 0.0]] * 3  # all words look at the blue frames
    path = tmp_path / "picture.png"
    draw_caption(CaptionPicture(clip, "costs $5 and $6", 0.5, ["a", "b", "c"], shares), plain_upstream, path)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    columns = []
    for color in colors.numpy().astype(int):
        near = np.argwhere((abs(pixels - color) < 8).all(-1))
        columns.append(near[:, 1].mean())
        assert len(near) > 1000
    assert columns == sorted(columns)
    blue = np.argwhere((abs(pixels - [0, 0, 255]) < 8).all(-1))
    below = pixels[blue[:, 0].max() + 60 :, blue[:, 1].min() : blue[:, 1].max()]
    assert (below > 180).all(-1).mean() > 0.3  # the bright end of the color map lies below them
