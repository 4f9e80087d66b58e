"""The template task: its table, its head, its predictions; copy this file with the folder."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mynah import ROOT
from mynah.downstream.example.expert import DownstreamExpert
from mynah.downstream.interfaces import SPLITS, UpstreamInfo
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

CONFIG = ROOT / "downstream" / "example" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160)
ROWS = [
    ("calls/a.wav", "dog", "train"),
    ("calls/b.wav", "cat", "train"),
    ("calls/c.wav", "cat", "dev"),
    ("calls/../calls/d.wav", "dog", "test"),
    ("calls/e.wav", "cat", "test"),
]


@pytest.fixture
def table(tmp_path) -> Path:
    (tmp_path / "calls").mkdir()
    for number, (path, _, _) in enumerate(ROWS):
        soundfile.write(tmp_path / path, np.full(3000 + 100 * number, 0.1 * (number + 1)), 16000)
    path = tmp_path / "labels.csv"
    path.write_text("path,label,split,comment\n" + "".join(f"{','.join(row)},\n" for row in ROWS))
    return path


def build(file_path: Path, *overrides: str, state: dict | None = None) -> DownstreamExpert:
    overrides = (f"datarc.file_path={file_path}", *overrides)
    config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=overrides)
    torch.manual_seed(0)
    return DownstreamExpert(UPSTREAM, config, state)


def test_datasets_hold_what_the_table_says(table):
    expert = build(table, "datarc.max_timestep=2000")
    seen = []
    for split in SPLITS:
        dataset = expert.get_dataset(split)
        items = [dataset[0, index] for index in range(len(dataset))]
        assert dataset.lengths == [len(item["signal"]) for item in items]
        for item in items:
            level = round(float(item["signal"].mean()) * 10)  # the file's number, written into its samples
            seen.append((level, expert.labels[item["label"]], split))
            assert len(item["signal"]) == (2000 if split == "train" else 2900 + 100 * level)
            assert item["fixed"] == (split != "train")
    assert sorted(seen) == [(number, label, split) for number, (_, label, split) in enumerate(ROWS, start=1)]


def test_rebuilt_expert_needs_no_data_and_predicts_the_same(table, tmp_path):
    expert = build(table)
    rebuilt = build(tmp_path / "gone.csv", state=json.loads(json.dumps(expert.state())))
    rebuilt.load_state_dict(expert.state_dict(), strict=True)
    features, lengths = torch.randn(2, 5, 8), torch.tensor([5, 3])
    assert rebuilt.predict(features, lengths) == expert.predict(features, lengths)


def test_predictions_are_labels_with_probabilities(table):
    expert = build(table)
    features = torch.randn(3, 4, 8)
    logits = expert.output(expert.hidden(features).mean(dim=1)).detach()
    for row, result in zip(
        logits, json.loads(json.dumps(expert.predict(features, torch.full((3,), 4)))), strict=True
    ):
        assert result["label"] == expert.labels[int(row.argmax())]
        assert result["probability"] == pytest.approx(float(row.softmax(0).max()), abs=1e-5)
        assert result["label"] in expert.format_prediction(result)


def test_padding_does_not_change_the_loss(table):
    expert = build(table)
    features, lengths = torch.randn(2, 4, 8), torch.tensor([4, 2])
    spoiled = torch.cat([features, torch.full((2, 3, 8), 1e4)], dim=1)
    spoiled[1, 2:] = float("nan")
    expected, loss = (expert("dev", x, lengths, [0, 1], {}, ["a", "b"]) for x in (features, spoiled))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_head_learns_labels_that_differ(table):
    expert = build(table)
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(2, 8, generator=generator)
    optimizer = torch.optim.AdamW(expert.parameters(), lr=0.05)
    for _ in range(40):
        labels = torch.randint(0, 2, (12,), generator=generator)
        features = kinds[labels][:, None] + 0.3 * torch.randn(12, 6, 8, generator=generator)
        records: dict[str, list] = {}
        loss = expert("dev", features, torch.full((12,), 6), labels.tolist(), records, [""] * 12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    metrics = expert.log_records("dev", records)
    assert metrics[expert.monitor] > 0.9 and metrics["chance"] == 0.5


def test_report_is_a_table_of_predictions(table, tmp_path):
    expert = build(table)
    records: dict[str, list] = {}
    expert("test", torch.randn(2, 4, 8), torch.tensor([4, 4]), [1, 0], records, ["d.wav", "e.wav"])
    [path] = expert.write_report("test", records, tmp_path)
    with path.open(newline="") as file:
        rows = [(row["name"], row["label"]) for row in csv.DictReader(file)]
    assert rows == [("d.wav", "dog"), ("e.wav", "cat")]


def test_split_without_files_is_refused(table):
    table.write_text(table.read_text().replace(",dev,", ",train,"))
    with pytest.raises(UserError, match="'dev'"):
        build(table).get_dataset("dev")


def test_without_data_the_demo_tells_female_from_male_voices(demo_cache):
    config = load_config(DownstreamExpert.Config, files=[CONFIG], demo=True)
    assert not DownstreamExpert.has_data(config)
    DownstreamExpert.use_demo_data(config)
    expert = DownstreamExpert(UPSTREAM, config)
    assert expert.labels == ["female", "male"]
    for split in SPLITS:
        assert {item["label"] for item in map(expert.get_dataset(split).__getitem__, range(0, 20, 2))} <= {0, 1}


def test_a_label_that_the_task_was_not_trained_with_is_told(table):
    state = build(table).state()
    table.write_text(table.read_text().replace("dog,test", "wolf,test"))
    with pytest.raises(
        UserError,
        match=r"1 of the 2 utterances of the split 'test' have labels that the training split has not, .* 'wolf'",
    ):
        build(table, state=state).get_dataset("test")
