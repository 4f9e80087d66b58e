"""The template for tasks on sequences: its table, its head, its predictions; copy this file with the folder."""

import csv
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from torch import nn

from mynah import ROOT
from mynah.downstream.example_sequence.expert import DownstreamExpert
from mynah.downstream.interfaces import SPLITS, SignalInfo, UpstreamInfo
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

FOLDER = ROOT / "downstream" / "example_sequence"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160)
ROWS = [
    ("calls/a.wav", "ab", "train"),
    ("calls/b.wav", "ba c", "train"),
    ("calls/c.wav", "a", "dev"),
    ("calls/../calls/d.wav", "cab", "test"),
]


@pytest.fixture
def table(tmp_path) -> Path:
    (tmp_path / "calls").mkdir()
    for number, (path, _, _) in enumerate(ROWS):
        soundfile.write(tmp_path / path, np.full(3000 + 100 * number, 0.1 * (number + 1)), 16000)
    path = tmp_path / "texts.csv"
    path.write_text("path,text,split,comment\n" + "".join(f"{','.join(row)},\n" for row in ROWS))
    return path


def build(file_path: Path, *overrides: str, state: dict | None = None, kind: type = DownstreamExpert):
    overrides = (f"datarc.file_path={file_path}", *overrides)
    config = load_config(kind.Config, files=[FOLDER / "config.yaml"], overrides=overrides)
    torch.manual_seed(0)
    return kind(UPSTREAM, config, state)


def test_datasets_hold_what_the_table_says(table):
    expert = build(table)
    assert expert.symbols == [" ", "a", "b", "c"]
    seen = []
    for split in SPLITS:
        for item in map(expert.get_dataset(split).__getitem__, range(len(expert.get_dataset(split)))):
            level = round(float(item["signal"].mean()) * 10)  # the file's number, written into its samples
            seen.append((level, expert.decode_label(item["label"]), split))
            assert item["fixed"] and len(item["signal"]) == 2900 + 100 * level
    assert sorted(seen) == [(number, text, split) for number, (_, text, split) in enumerate(ROWS, start=1)]


def test_rebuilt_expert_needs_no_data_and_predicts_the_same(table, tmp_path):
    expert = build(table)
    rebuilt = build(tmp_path / "gone.csv", state=json.loads(json.dumps(expert.state())))
    rebuilt.load_state_dict(expert.state_dict(), strict=True)
    features, lengths = torch.randn(2, 5, 8), torch.tensor([5, 3])
    assert rebuilt.predict(features, lengths) == expert.predict(features, lengths)


def test_predictions_are_texts_and_the_times_of_their_characters(table):
    expert = build(table)
    says = torch.nn.functional.one_hot(torch.tensor([[0, 2, 2, 0, 1, 3]]), 5).float()
    expert.model = nn.Identity()
    signal = SignalInfo("x.wav", 960, expert.upstream.grid.times(6).tolist())
    [result] = json.loads(json.dumps(expert.predict(says, torch.tensor([6]), [signal])))
    assert result["text"] == expert.format_prediction(result) == "a b"
    times = [{"token": "a", "time": 0.015}, {"token": " ", "time": 0.045}, {"token": "b", "time": 0.055}]
    assert result["tokens"] == times  # the centres of the positions 1, 4 and 5, which are 10 ms long


def test_padding_does_not_change_the_loss(table):
    expert = build(table)
    features, lengths = torch.randn(2, 4, 8), torch.tensor([4, 2])
    spoiled = torch.cat([features, torch.full((2, 3, 8), 1e4)], dim=1)
    spoiled[1, 2:] = float("nan")
    records = {}, {}
    expected, loss = (
        expert("dev", x, lengths, [[1, 2], [3]], into, ["a", "b"])
        for x, into in zip((features, spoiled), records, strict=True)
    )
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert records[0]["hypothesis"] == records[1]["hypothesis"]


def learn(expert, steps: int = 120) -> dict[str, float]:
    """Metrics after training on features that show each character for three positions, in noise."""
    generator = torch.Generator().manual_seed(0)
    kinds = 2 * torch.randn(len(expert.symbols) + 1, 8, generator=generator)
    optimizer = torch.optim.AdamW(expert.parameters(), lr=0.02)
    for _ in range(steps):
        labels = [torch.randint(1, len(kinds), (4,), generator=generator) for _ in range(8)]
        shown = torch.stack([torch.stack([row, torch.zeros_like(row)], 1).repeat_interleave(3) for row in labels])
        features = kinds[shown] + 0.1 * torch.randn(8, 24, 8, generator=generator)
        records: dict[str, list] = {}
        rows = [row.tolist() for row in labels]
        loss = expert("dev", features, torch.full((8,), 24), rows, records, [""] * 8)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return expert.log_records("dev", records)


def test_head_learns_texts_without_error(table):
    assert learn(build(table))["cer"] == 0


class TwoLosses(DownstreamExpert):
    def build_head(self, feature_size, num_outputs):
        self.counter = nn.Linear(feature_size, 1)
        return super().build_head(feature_size, num_outputs)

    def forward(self, split, features, lengths, labels, records, names):
        valid = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
        counts = torch.where(valid, self.counter(features)[..., 0].sigmoid(), 0).sum(1)
        second = F.l1_loss(counts, counts.new_tensor([len(label) for label in labels]))
        self.scalars["loss_count"] = second.detach()
        return super().forward(split, features, lengths, labels, records, names) + 0.1 * second


def test_a_second_loss_is_learned_and_logged_and_is_what_the_readme_shows(table):
    expert = build(table, kind=TwoLosses)
    features, lengths = torch.randn(1, 6, 8), torch.tensor([4])
    both = expert("train", features, lengths, [[1, 2, 3]], {}, ["a"])
    both.backward()
    first = build(table)("train", features, lengths, [[1, 2, 3]], {}, ["a"])
    count = torch.sigmoid(features[0, :4] @ expert.counter.weight[0] + expert.counter.bias).sum().item()
    assert expert.scalars["loss_count"].item() == pytest.approx(abs(3 - count), rel=1e-5)
    assert both.item() != first.item() and expert.counter.weight.grad.abs().sum() > 0
    code = inspect.getsource(TwoLosses).partition("\n")[2]
    assert code in (FOLDER / "README.md").read_text() and code.count("\n") <= 10


def test_report_is_a_table_and_a_picture(table, tmp_path):
    expert = build(table)
    records: dict[str, list] = {}
    expert("test", torch.randn(2, 4, 8), torch.tensor([4, 4]), [[1, 2], [3]], records, ["d.wav", "e.wav"])
    transcripts, picture = expert.write_report("test", records, tmp_path)
    with transcripts.open(newline="") as file:
        rows = [(row["name"], row["reference"]) for row in csv.DictReader(file)]
    assert rows == [("d.wav", " a"), ("e.wav", "b")] and picture.name == "errors.png"


def test_split_without_files_is_refused(table):
    table.write_text(table.read_text().replace(",dev,", ",train,"))
    with pytest.raises(UserError, match="'dev'"):
        build(table).get_dataset("dev")


def test_a_character_that_training_does_not_have_is_told(table):
    table.write_text(table.read_text().replace("cab,test", "cub,test"))
    with pytest.raises(
        UserError, match=r"1 of the \d utterances of the split 'test' have characters .* such as 'u'; correct"
    ):
        build(table).get_dataset("test")


def test_crops_are_refused_as_they_do_not_hold_the_text(table):
    with pytest.raises(UserError, match=r"max_timestep.*whole text"):
        build(table, "datarc.max_timestep=16000")


def test_without_data_the_demo_reads_what_is_said(demo_cache):
    config = load_config(DownstreamExpert.Config, files=[FOLDER / "config.yaml"], demo=True)
    assert not DownstreamExpert.has_data(config)
    DownstreamExpert.use_demo_data(config)
    expert = DownstreamExpert(UPSTREAM, config)
    assert {"E", " "} <= set(expert.symbols)
    assert all(len(expert.get_dataset(split)) for split in SPLITS)
