"""Runs of tasks on frozen features: kept as means or frames, in memory or on disk, they end in the same weights."""

import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import mynah
from mynah.downstream import caching
from mynah.upstream.acoustic import AcousticUpstream
from mynah.utility.audio import corpus as reading
from mynah.utility.storage import cache_dir

MODEL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2}
STEPS = 18
SETTINGS = [
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=9",
    "trainer.enable_progress_bar=false",
    "scheduler.num_warmup_steps=2",
    "dataloader.batch_size=4",
    "dataloader.num_workers=0",
    "optimizer.lr=1e-2",
    "datarc.max_timestep=null",
]
FRAMES = ("model.pooling=statistics",)
CROPS = ("datarc.max_timestep=12000",)
pytestmark = pytest.mark.usefixtures("any_disk")


@pytest.fixture
def train(tmp_path, corpus):
    """train(name, *overrides) -> the weights that a task ends in."""
    model = tmp_path / "model.yaml"
    model.write_text(yaml.safe_dump({"model": MODEL}))

    def run(name: str, *overrides: str, **options) -> dict[str, torch.Tensor]:
        data = f"datarc.file_path={corpus}"
        given = {"upstream": "aalbert", "model_config": model, "name": name, "root": tmp_path / "runs", **options}
        mynah.train("voxceleb1_speaker", overrides=[data, *SETTINGS, *overrides], **given)
        return torch.load(tmp_path / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    return run


@pytest.fixture
def counts(monkeypatch) -> dict[str, int]:
    """How many signals went through the upstream, and how many files were read, as they grow."""
    seen = {"encoded": 0, "read": 0}
    forward, read = AcousticUpstream.forward, reading.read_audio

    def encode(self, signals, num_hidden_states=None):
        seen["encoded"] += len(signals)
        return forward(self, signals, num_hidden_states)

    def read_counted(*arguments):
        seen["read"] += 1
        return read(*arguments)

    monkeypatch.setattr(AcousticUpstream, "forward", encode)
    monkeypatch.setattr(reading, "read_audio", read_counted)
    return seen


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("settings", [FRAMES, (*CROPS, "features.windows=2", "features.cache_dtype=float16")])
def test_fresh_kept_and_resumed_runs_end_in_the_same_weights(train, counts, tmp_path, settings):
    disk = (*settings, "features.cache=disk")
    fresh = train("fresh", *disk)
    before = dict(counts)
    kept = train("kept", *disk)
    assert counts["encoded"] - before["encoded"] == 2  # of dev, which are tried before training
    assert counts["read"] - before["read"] == 2
    shutil.rmtree(cache_dir() / "features")
    half = (*disk, "trainer.max_steps=5", f"scheduler.num_training_steps={STEPS}", "trainer.val_check_interval=5")
    train("half", *half)
    again = [f"trainer.max_steps={STEPS}", "trainer.val_check_interval=9"]
    mynah.train(resume=tmp_path / "runs" / "half", overrides=again)
    resumed = torch.load(tmp_path / "runs" / "half" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert_same(fresh, kept)
    assert_same(fresh, resumed)
    assert len(list(cache_dir().glob("features/*"))) == 1  # one key, of the resumed run too


def test_means_are_the_same_in_memory_and_on_disk(train):
    assert_same(train("memory"), train("disk", "features.cache=disk"))


def test_workers_read_no_file_of_known_features(train, counts, monkeypatch, tmp_path):
    log = tmp_path / "read"
    read = reading.read_audio

    def read_logged(path, *arguments):
        with log.open("a") as file:
            file.write(f"{path}\n")
        return read(path, *arguments)

    expected = train("alone", "features.cache=disk")
    monkeypatch.setattr(reading, "read_audio", read_logged)  # workers are forks of this process
    assert_same(train("workers", "features.cache=disk", "dataloader.num_workers=2"), expected)
    assert len(log.read_text().splitlines()) == 2


def test_after_the_first_pass_nothing_is_read(train, counts):
    train("memory")
    assert counts["read"] <= 24 + 2  # six utterances of each of four speakers, and two that are tried
    assert counts["encoded"] <= 24 + 2


def test_crops_that_are_drawn_anew_are_computed_anew(train, counts):
    train("crops", *CROPS)
    random = counts["encoded"]
    train("windows", *CROPS, "features.windows=1")
    assert random > 1.5 * (counts["encoded"] - random)


def test_windows_are_the_crops_of_the_first_passes(train):
    """A pass is four steps: the first sees the same crops, and with windows the second sees them again."""
    short = ("trainer.max_steps=4", "trainer.val_check_interval=4", *CROPS, *FRAMES, "features.cache=off")
    assert_same(train("random", *short), train("fixed", *short, "features.windows=1"))
    longer = ("trainer.max_steps=9", *CROPS, *FRAMES, "features.cache=off")
    random, fixed = train("random9", *longer), train("fixed9", *longer, "features.windows=1")
    assert not torch.equal(random["expert.model.output.weight"], fixed["expert.model.output.weight"])


def test_a_changed_file_is_computed_anew(train, counts, corpus, tmp_path, caplog):
    own = tmp_path / "own"
    shutil.copytree(corpus, own)
    options = (f"datarc.file_path={own}", "features.cache=disk")
    train("first", *options)
    before = counts["encoded"]
    for path in sorted(own.rglob("*.wav"))[:3]:
        state = path.stat()
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    train("second", *options)
    assert counts["encoded"] - before == 2 + 3


def test_what_is_kept_is_said_in_lines(train, caplog):
    caplog.set_level(logging.INFO, "mynah")
    train("means", *CROPS, "features.cache=disk")
    text = caplog.text
    assert f"the mean of each hidden state over time is kept, {3 * 16 * 4 / 1024:.1f} KiB an utterance" in text
    assert "a new crop is drawn in every pass" in text and "features.windows=4 would draw 4 crops of each" in text
    assert "MiB on disk" in text and str(cache_dir() / "features") in text


def test_a_full_disk_is_said_once_and_changes_nothing(train, monkeypatch, caplog):
    expected = train("roomy", "features.cache=disk")
    shutil.rmtree(cache_dir() / "features")
    monkeypatch.setattr(caching.FeatureStore, "room", lambda self: 10)
    caplog.clear()
    assert_same(train("full", "features.cache=disk"), expected)
    assert caplog.text.count("the run goes on and keeps no more") == 1
    assert not list(cache_dir().glob("features/*/*.safetensors"))


def test_a_folder_that_cannot_be_made_is_said_once_and_changes_nothing(train, caplog):
    expected = train("roomy", "features.cache=disk")
    shutil.rmtree(cache_dir() / "features")
    Path(cache_dir() / "features").write_text("in the way")
    assert_same(train("full", "features.cache=disk"), expected)
    assert caplog.text.count("the run goes on and keeps no more") == 1
