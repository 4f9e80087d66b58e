"""The template for tasks by frame: its table, its labels in time, its predictions; copy this file with the folder."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mynah import ROOT
from mynah.downstream.example_frames.expert import DownstreamExpert
from mynah.downstream.interfaces import SPLITS, SignalInfo, UpstreamInfo
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

CONFIG = ROOT / "downstream" / "example_frames" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160, first_center=200.0)
SILENCE, SPEECH = 0, 1


@pytest.fixture
def table(tmp_path) -> Path:
    """Files of 1 s that are loud from 0.25 to 0.75 s, a CSV of them, and their alignments."""
    wav = np.zeros(16000)
    wav[4000:12000] = 0.5
    rows = ["path,alignment,split"]
    for index, split in enumerate(("train", "train", "dev", "test")):
        soundfile.write(tmp_path / f"{index}.wav", wav, 16000)
        (tmp_path / f"{index}.txt").write_text("0.25 0.75 speech\n")
        rows.append(f"{index}.wav,{index}.txt,{split}")
    path = tmp_path / "activity.csv"
    path.write_text("\n".join(rows))
    return path


def build(file_path: Path, *overrides: str, state: dict | None = None) -> DownstreamExpert:
    overrides = (f"datarc.file_path={file_path}", *overrides)
    config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=overrides)
    torch.manual_seed(0)
    return DownstreamExpert(UPSTREAM, config, state)


@pytest.mark.parametrize("crop", ["null", "7000"])
def test_every_label_says_whether_the_middle_of_its_position_is_loud(table, crop):
    expert = build(table, f"datarc.max_timestep={crop}")
    seen = set()
    for split in SPLITS:
        dataset = expert.get_dataset(split)
        for key in [(number, index) for number in range(6) for index in range(len(dataset))]:
            item = dataset[key]
            signal, label = item["signal"], item["label"]
            for position in range((len(signal) - 400) // 160 + 1):
                assert int(label[position]) == int(signal[200 + 160 * position] > 0.1)
            seen.add((split, len(signal)))
    assert seen == {("train", 16000 if crop == "null" else 7000), ("dev", 16000), ("test", 16000)}


def test_rebuilt_expert_needs_no_data_and_predicts_the_same(table, tmp_path):
    expert = build(table)
    rebuilt = build(tmp_path / "gone.csv", state=json.loads(json.dumps(expert.state())))
    rebuilt.load_state_dict(expert.state_dict(), strict=True)
    features, signals = torch.randn(1, 50, 8), [SignalInfo("a.wav", 8160, UPSTREAM.grid.times(50).tolist())]
    assert rebuilt.predict(features, torch.tensor([50]), signals) == expert.predict(
        features, torch.tensor([50]), signals
    )


def test_predicted_segments_cover_the_signal_and_have_the_likeliest_labels(table):
    expert, times = build(table), UPSTREAM.grid.times(50)
    features = torch.randn(1, 50, 8)
    [result] = expert.predict(features, torch.tensor([50]), [SignalInfo("a.wav", 8160, times.tolist())])
    segments = json.loads(json.dumps(result))["segments"]
    assert segments[0]["start"] == 0 and segments[-1]["end"] == pytest.approx(8160 / 16000)
    assert all(one["end"] == other["start"] for one, other in pairwise(segments))
    for position, best in enumerate(expert.model(features)[0].argmax(-1).tolist()):
        [segment] = [one for one in segments if one["start"] <= times[position] < one["end"]]
        assert segment["label"] == expert.labels[best]
    assert segments[0]["label"] in expert.format_prediction(result)


def test_padding_does_not_change_the_loss(table):
    expert = build(table)
    features, lengths = torch.randn(2, 4, 8), torch.tensor([4, 2])
    labels = [torch.tensor([0, 1, 1, 0, 1]), torch.tensor([1, 0, 0])]
    spoiled = torch.cat([features, torch.full((2, 3, 8), 1e4)], dim=1)
    spoiled[1, 2:] = float("nan")
    expected, loss = (expert("train", x, lengths, labels, {}, ["a", "b"]) for x in (features, spoiled))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_accuracy_and_loss_are_those_of_all_frames_together(table):
    expert, records = build(table), {}
    features, lengths = torch.randn(2, 6, 8), torch.tensor([6, 3])
    labels = [torch.tensor([0, 1, 1, 0, 1, 1]), torch.tensor([1, 0, 0])]
    for row in range(2):  # a batch each
        one = slice(row, row + 1)
        expert("dev", features[one], lengths[one], labels[one], records, [f"{row}.wav"])
    logits = torch.cat([expert.model(features[0]), expert.model(features[1, :3])])
    metrics = expert.log_records("dev", records)
    assert metrics["accuracy"] == pytest.approx(float((logits.argmax(1) == torch.cat(labels)).float().mean()))
    assert metrics["loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, torch.cat(labels))), rel=1e-5
    )
    assert metrics["chance"] == pytest.approx(5 / 9)


def test_report_has_a_table_and_pictures(table, tmp_path):
    expert, records = build(table), {}
    item = expert.get_dataset("test")[0]
    expert("test", torch.randn(1, 98, 8), torch.tensor([98]), [item["label"]], records, [item["name"]])
    written = expert.write_report("test", records, tmp_path)
    assert [path.name for path in written] == ["predictions.csv", "confusion.png", "frames.png"]
    assert (tmp_path / "frames.png").stat().st_size > 5000


def test_a_wrong_alignment_is_told_with_its_line(table):
    (table.parent / "2.txt").write_text("0.1 0.3 speech\n0.5 0.4 speech\n")
    with pytest.raises(UserError, match=r"2\.txt, line 2: it ends at 0\.4 s, before its start at 0\.5 s"):
        build(table)


def test_without_data_the_demo_tells_speech_from_silence(demo_cache):
    config = load_config(DownstreamExpert.Config, files=[CONFIG], demo=True)
    assert not DownstreamExpert.has_data(config)
    DownstreamExpert.use_demo_data(config)
    expert = DownstreamExpert(UPSTREAM, config)
    assert expert.labels == ["silence", "speech"]
    label = expert.get_dataset("test")[0]["label"]
    assert label[0] == SILENCE and 0.5 < (label == SPEECH).float().mean() < 0.99
