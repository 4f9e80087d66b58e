"""Runs of MelHuBERT: both stages, interrupted where it hurts, spread over processes, and what a downstream gets."""

import shutil
import sys

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mynah.commands import pretrain as run_pretrain
from mynah.upstream.melhubert.hubconf import melhubert
from mynah.utility.acoustic import clusters
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, save_atomically

SMALL = ["objective.clusters.num_clusters=11", "model.attention_probs_dropout_prob=0", "optimizer.lr=1e-3"]


@pytest.fixture
def overrides(tiny_pretraining) -> list[str]:
    return [*tiny_pretraining, *SMALL, "trainer.max_steps=6", "trainer.val_check_interval=4"]


@pytest.fixture
def pretrain(monkeypatch, tmp_path, overrides):
    """pretrain(*arguments) runs a tiny pretraining in this process, below tmp_path."""

    def run(*arguments, more=()):
        command = ["run_pretrain.py", "-p", str(tmp_path), *arguments, "-o", *overrides, *more]
        monkeypatch.setattr(sys, "argv", command)
        return run_pretrain.run(run_pretrain.parse_arguments())

    return run


def last(folder) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(one: dict, other: dict) -> None:
    assert one["global_step"] == other["global_step"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key


def test_a_run_logs_and_draws_its_clusters_and_keeps_what_it_has_learned(pretrain, tmp_path):
    more = ["logging.pictures_every_n_steps=3", "trainer.log_every_n_steps=2", "datarc.valid_fraction=0.5"]
    assert pretrain("-n", "run", "-u", "melhubert", more=more) == 0
    assert (tmp_path / "run" / "clusters.png").is_file()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    names = {f"val_{name}" for name in ("loss", "loss_share", "accuracy", "used_clusters", "predicted_clusters")}
    assert names <= set(events.Tags()["scalars"])
    used = [event.value for event in events.Scalars("val_used_clusters")]
    assert min(used) > 1 and max(used) <= 11
    weights = last(tmp_path / "run")["state_dict"]
    assert weights["model.objective.centroids"].shape == (11, 80)
    assert 1 < weights["model.objective.perplexity"] <= 11
    assert (weights["model.features.statistics.mel_0.mean"] != 0).all()


def test_a_run_stopped_while_it_looks_for_clusters_begins_anew_with_the_same_end(pretrain, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    assert pretrain("-n", "whole", "-u", "melhubert") == 0
    with monkeypatch.context() as patch:
        patch.setattr(clusters, "kmeans", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain("-n", "stopped", "-u", "melhubert", "-a")
    assert not (tmp_path / "stopped" / "checkpoints").exists()
    assert pretrain("-n", "stopped", "-u", "melhubert", "-a") == 0
    assert_same(last(tmp_path / "whole"), last(tmp_path / "stopped"))


def test_the_second_stage_goes_on_without_the_first_and_ends_in_the_same_weights(pretrain, tmp_path, monkeypatch):
    """The teacher is another upstream, with a front end of its own and positions at the same places."""
    teacher = ["model.frames_per_position=2", "features.input.cmvn=corpus"]
    command = ["run_pretrain.py", "-p", str(tmp_path), "-n", "first", "-u", "aalbert"]
    assert pretrain(*command[3:], more=["objective.name=reconstruction", *teacher]) == 0
    second = ["-u", "melhubert", "-a"]
    taught = [f"init.clusters={tmp_path / 'first'}:1"]
    assert pretrain("-n", "whole", *second, more=taught) == 0
    whole = last(tmp_path / "whole")
    assert whole["state_dict"]["model.objective.centroids"].shape == (11, 16)
    for key, value in last(tmp_path / "first")["state_dict"].items():
        if not key.startswith("model.objective."):
            taught_by = whole["state_dict"][key.replace("model.", "model.objective.teacher.trunk.", 1)]
            assert torch.equal(value, taught_by), key

    assert pretrain("-n", "legs", *second, more=[*taught, "trainer.max_steps=2"]) == 0
    shutil.rmtree(tmp_path / "first")
    assert pretrain("-n", "legs", *second, more=taught) == 0
    assert_same(whole, last(tmp_path / "legs"))

    with pytest.raises(UserError, match=r"init\.clusters='other:1': .*last\.ckpt was trained with"):
        pretrain("-n", "legs", *second, more=["init.clusters=other:1"])
    written = tmp_path / "whole" / "pretrain_config.yaml"
    assert yaml.safe_load(written.read_text())["objective"]["clusters"]["teacher"]["layer"] == 1
    with pytest.raises(UserError, match=r"teacher: is found by init.clusters=CKPT:LAYER"):
        pretrain("-n", "third", "-u", "melhubert", "-c", str(written), more=["init.clusters="])

    expert = melhubert(ckpt=tmp_path / "whole").eval()
    assert not any("teacher" in name for name in expert.state_dict())
    again = melhubert(**expert.build_arguments())
    again.load_state_dict(expert.state_dict(), strict=True)
    wav = torch.randn(9000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(expert([wav])["last_hidden_state"], again.eval()([wav])["last_hidden_state"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere:1", "nowhere: no such checkpoint"),
        ("run:3", "the earlier model has hidden states 0 to 2, got 3"),
        ("run:1", "a position every 480 samples, this one every 320"),
    ],
)
def test_a_teacher_that_cannot_teach_is_told(pretrain, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    pretrain("-n", "run", "-u", "aalbert", more=["objective.name=reconstruction", "trainer.max_steps=1"])
    with pytest.raises(UserError, match=message):
        pretrain("-n", "x", "-u", "melhubert", more=[f"init.clusters={given}"])
    assert not (tmp_path / "x").exists()


def test_init_from_keeps_clusters_and_statistics_and_takes_another_objectives_trunk_alone(pretrain, tmp_path):
    still = ["optimizer.lr=1e-30", "trainer.max_steps=1"]
    pretrain("-n", "first", "-u", "melhubert", more=["seed=1"])
    first = last(tmp_path / "first")["state_dict"]
    another_sample = [*still, "objective.clusters.fit_positions=77"]
    pretrain("-n", "same", "-u", "melhubert", "--init-from", str(tmp_path / "first"), more=another_sample)
    for key, value in last(tmp_path / "same")["state_dict"].items():
        torch.testing.assert_close(value, first[key], msg=key)
    pretrain(
        *("-n", "more", "-u", "melhubert", "--init-from", str(tmp_path / "first")),
        more=[*still, "objective.clusters.num_clusters=5"],
    )
    more = last(tmp_path / "more")["state_dict"]
    assert more["model.objective.centroids"].shape[0] == 5 and more["model.objective.perplexity"] > 1
    for key, value in more.items():
        if not key.startswith("model.objective."):
            torch.testing.assert_close(value, first[key], msg=key)


def test_init_from_a_second_stage_of_another_teacher_learns_the_clusters_of_its_own(pretrain, tmp_path):
    for seed in (1, 2):
        pretrain("-n", f"teacher_{seed}", "-u", "melhubert", more=[f"seed={seed}", "trainer.max_steps=1"])
    taught = [f"init.clusters={tmp_path / f'teacher_{seed}'}:1" for seed in (1, 2)]
    still = ["optimizer.lr=1e-30", "trainer.max_steps=1"]
    pretrain("-n", "first", "-u", "melhubert", more=[taught[0]])
    for name, teacher in zip(("other", "same"), reversed(taught), strict=True):
        pretrain("-n", name, "-u", "melhubert", "--init-from", str(tmp_path / "first"), more=[*still, teacher])
    first, other, same = (last(tmp_path / name)["state_dict"] for name in ("first", "other", "same"))
    for key, value in last(tmp_path / "teacher_2")["state_dict"].items():
        if not key.startswith("model.objective."):
            assert torch.equal(other[key.replace("model.", "model.objective.teacher.trunk.", 1)], value), key
    centroids = "model.objective.centroids"
    assert torch.equal(same[centroids], first[centroids]) and not torch.equal(other[centroids], first[centroids])


def test_init_from_of_features_made_otherwise_measures_anew(pretrain, tmp_path, caplog):
    corpus, still = ["features.input.cmvn=corpus"], ["optimizer.lr=1e-30", "trainer.max_steps=1"]
    quiet = [*corpus, *still, "features.level_db=-60"]
    pretrain("-n", "first", "-u", "melhubert", more=corpus)
    pretrain("-n", "fresh", "-u", "melhubert", more=quiet)
    pretrain("-n", "second", "-u", "melhubert", "--init-from", str(tmp_path / "first"), more=quiet)
    assert "its features are made otherwise (features.level_db)" in caplog.text
    first, fresh, second = (last(tmp_path / name)["state_dict"] for name in ("first", "fresh", "second"))
    for key in first:
        if "statistics" in key or "centroids" in key:
            torch.testing.assert_close(second[key], fresh[key], msg=key)
        elif "encoder" in key:
            torch.testing.assert_close(second[key], first[key], msg=key)


def test_a_second_stage_may_begin_with_the_encoder_of_the_first(pretrain, tmp_path):
    pretrain("-n", "first", "-u", "melhubert")
    first = str(tmp_path / "first")
    more = [f"init.clusters={first}:2", "optimizer.lr=1e-30", "trainer.max_steps=1"]
    pretrain("-n", "second", "-u", "melhubert", "--init-from", first, more=more)
    before, after = last(tmp_path / "first")["state_dict"], last(tmp_path / "second")["state_dict"]
    for key, value in before.items():
        if not key.startswith("model.objective."):
            torch.testing.assert_close(after[key], value, msg=key)
            assert torch.equal(after[key.replace("model.", "model.objective.teacher.trunk.", 1)], value), key


def test_a_run_of_an_earlier_version_goes_on(pretrain, tmp_path):
    """It had `cmvn: true`, and neither init nor statistics_hours."""
    aalbert = ["-u", "aalbert", "-a"]
    more = ["objective.clusters.num_clusters=512"]  # what is not given
    pretrain("-n", "whole", *aalbert, more=more)
    pretrain("-n", "old", *aalbert, more=[*more, "trainer.max_steps=2"])
    checkpoint = last(tmp_path / "old")
    metadata = checkpoint[METADATA]
    del metadata["pretrain_config"]["init"]
    for plain in (metadata["config"], metadata["pretrain_config"]):
        plain["features"]["input"]["cmvn"] = True
        plain["objective"]["reconstruction"]["targets"][0]["cmvn"] = True
        del plain["features"]["statistics_hours"], plain["objective"]["clusters"]
    save_atomically(checkpoint, tmp_path / "old" / "checkpoints" / "last.ckpt")
    assert pretrain("-n", "old", *aalbert, more=more) == 0
    assert_same(last(tmp_path / "whole"), last(tmp_path / "old"))


def test_two_processes_learn_the_clusters_and_take_the_steps_of_one(script, tmp_path, overrides):
    same = ["model.hidden_dropout_prob=0", "trainer.accelerator=cpu", "optimizer.name=sgd", "trainer.max_steps=4"]
    run = ["run_pretrain.py", "-u", "melhubert", "-p", str(tmp_path)]
    status, output = script(*run, "-n", "one", "-o", *overrides, *same, "dataloader.batch_size=4")
    assert status == 0, output
    two = ["dataloader.batch_size=2", "trainer.devices=2", "trainer.strategy=ddp"]
    status, output = script(*run, "-n", "two", "-o", *overrides, *same, *two)
    assert status == 0, output
    one, two = (last(tmp_path / name) for name in ("one", "two"))
    for key in ("model.objective.centroids", "model.objective.perplexity", "model.features.statistics.mel_0.mean"):
        assert torch.equal(one["state_dict"][key], two["state_dict"][key]), key
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(value, two["state_dict"][key], atol=1e-5, rtol=0, msg=key)
    starts = [run["mynah"]["first_val_loss"] for run in (one, two)]
    assert starts[0] == pytest.approx(starts[1], rel=1e-5)
