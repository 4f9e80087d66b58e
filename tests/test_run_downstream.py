"""run_downstream.py as a user meets it: train, resume, evaluate, predict, refuse."""

import csv
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import mynah
from mynah.commands import downstream as run_downstream
from mynah.commands import pretrain as run_pretrain
from mynah.downstream import training
from mynah.downstream.build import TaskOptions
from mynah.utility.errors import UserError

TINY = ["trainer.max_steps=20", "trainer.val_check_interval=10", "trainer.enable_progress_bar=false"]
TINY += ["dataloader.batch_size=4", "dataloader.num_workers=0", "trainer.log_every_n_steps=5"]
TINY += ["scheduler.num_warmup_steps=2", "optimizer.lr=1e-2"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, corpus):
    """The folder of a tiny pretrained aalbert."""
    root = tmp_path_factory.mktemp("pretrained")
    options = [f"datarc.file_path={{tones: {corpus}}}", "datarc.max_timestep=8000", "datarc.min_timestep=4000"]
    options += ["model.hidden_size=16", "model.num_attention_heads=2", "model.intermediate_size=32"]
    options += ["dataloader.num_workers=0", "trainer.max_steps=2", "trainer.enable_progress_bar=false"]
    options += ["trainer.accumulate_grad_batches=1", "logging.pictures_every_n_steps=0", "datarc.valid_fraction=0.2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYNAH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sys, "argv", ["x", "-n", "tiny", "-u", "aalbert", "-p", str(root), "-o", *options])
        assert run_pretrain.run(run_pretrain.parse_arguments()) == 0
    return root / "tiny"


@pytest.fixture
def downstream(monkeypatch, tmp_path):
    """downstream(*arguments) runs the script in this process, below tmp_path, and returns its exit status."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["run_downstream.py", "-p", str(tmp_path), *map(str, arguments)])
        return run_downstream.run(run_downstream.parse_arguments())

    return run


@pytest.fixture
def speakers(corpus):
    return ["-d", "voxceleb1_speaker", "-o", f"datarc.file_path={corpus}", "datarc.max_timestep=12000", *TINY]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpus):
    """The folder of a speaker task trained on fbank; not to be changed."""
    root = tmp_path_factory.mktemp("trained")
    options = ["-d", "voxceleb1_speaker", "-o", f"datarc.file_path={corpus}", "datarc.max_timestep=12000", *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYNAH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sys, "argv", ["x", "-n", "sid", "-u", "fbank", "-p", str(root), *options])
        assert run_downstream.run(run_downstream.parse_arguments()) == 0
    return root / "sid"


def test_a_task_is_trained_tested_evaluated_and_used(downstream, tmp_path, pretrained, speakers, corpus, capsys):
    assert downstream("-n", "sid", "-u", "aalbert", "-k", pretrained, *speakers) == 0
    folder = tmp_path / "sid"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["best_step"] in (10, 20) and metrics["fine_tune"] is False
    rows = list(csv.DictReader((folder / "test" / "predictions.csv").open()))
    right = [row["speaker"] == row["predicted"] for row in rows]
    assert metrics["test"]["accuracy"] == pytest.approx(sum(right) / len(right))
    assert (folder / "test" / "confusion.png").stat().st_size > 5000

    capsys.readouterr()
    more = ["-o", "trainer.enable_progress_bar=true"]  # which must not be mixed into the results
    assert downstream("-m", "evaluate", "-e", folder, "--split", "test", "--json", *more) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["accuracy"] == metrics["test"]["accuracy"]
    assert evaluated["loss"] == pytest.approx(metrics["test"]["loss"], abs=1e-5)

    file = next(Path(corpus).rglob("*.wav"))
    assert downstream("-m", "inference", "-e", folder, "--input", file, file.parent, "--json") == 0
    results = json.loads(capsys.readouterr().out)
    assert results[0]["file"] == str(file) and len(results) == 1 + len(list(file.parent.glob("*.wav")))
    chances = [guess["probability"] for guess in results[0]["speakers"]]
    assert sum(chances) == pytest.approx(1, abs=1e-4)  # four speakers: all of them are shown
    assert {guess["speaker"] for guess in results[0]["speakers"]} == {f"speaker{index}" for index in range(4)}


def test_inference_needs_neither_corpus_nor_upstream_checkpoint(downstream, tmp_path, pretrained, corpus, capsys):
    moving, source = tmp_path / "moving", tmp_path / "upstream"
    shutil.copytree(corpus, moving)
    shutil.copytree(pretrained, source)
    options = ["-d", "voxceleb1_speaker", "-o", f"datarc.file_path={moving}", *TINY]
    downstream("-n", "sid", "-u", "aalbert", "-k", source, *options)
    wav = tmp_path / "kept.wav"
    shutil.copy(next(moving.rglob("*.wav")), wav)
    shutil.rmtree(moving)
    shutil.rmtree(source)
    capsys.readouterr()
    assert downstream("-m", "inference", "-e", tmp_path / "sid", "--input", wav) == 0
    assert capsys.readouterr().out.startswith(f"{wav}: speaker")


def test_unreadable_inputs_are_named_the_rest_predicted(downstream, tmp_path, pretrained, speakers, corpus, capsys):
    downstream("-n", "sid", "-u", "aalbert", "-k", pretrained, *speakers)
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    good = next(Path(corpus).rglob("*.wav"))
    capsys.readouterr()
    assert downstream("-m", "inference", "-e", tmp_path / "sid", "--input", tmp_path / "bad.wav", good) == 1
    assert str(good) in capsys.readouterr().out


def test_a_resumed_task_ends_where_an_uninterrupted_one_ends(downstream, tmp_path, pretrained, speakers):
    frozen = ["-u", "aalbert", "-k", pretrained, *speakers]
    downstream("-n", "whole", *frozen)
    downstream("-n", "half", *frozen, "trainer.max_steps=10", "scheduler.num_training_steps=20")
    assert downstream("-e", tmp_path / "half", "-o", "trainer.max_steps=20") == 0
    whole, resumed = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "half")
    )
    assert whole["global_step"] == resumed["global_step"] == 20
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-u", "mel"], r"-u mel: .*best\.ckpt was trained with fbank"),
        (["-d", "example"], "-d example: .* was trained with voxceleb1_speaker"),
        (["-f"], "-f True: .* was trained with False"),
        (["-s", "last_hidden_state"], "-s last_hidden_state: .* was trained with hidden_states"),
        (["-l", "0"], "-l 0: .* was trained with None"),
        (["-k", "other.ckpt"], "-k is for a new run"),
        (["-c", "other.yaml"], "-c is for a new run"),
    ],
)
def test_what_an_experiment_was_not_made_with_is_refused(downstream, trained, arguments, words):
    with pytest.raises(UserError, match=words):
        downstream("-m", "evaluate", "-e", trained, *arguments)


def test_the_command_that_started_a_task_goes_on_with_it(downstream, tmp_path, speakers):
    command = ["-n", "sid", "-a", "-u", "fbank", "-f", "False", *speakers]
    assert downstream(*command) == 0
    assert downstream(*command) == 0
    with pytest.raises(UserError, match="-u mel"):
        downstream("-n", "sid", "-a", "-u", "mel", *speakers)


def test_a_checkpoint_predicts_and_goes_on_wherever_it_lies(downstream, tmp_path, trained, corpus, capsys):
    stray = tmp_path / "elsewhere" / "speakers.ckpt"
    stray.parent.mkdir()
    shutil.copy(trained / "checkpoints" / "last.ckpt", stray)
    wav = next(Path(corpus).rglob("*.wav"))
    assert downstream("-m", "inference", "-e", stray, "--input", wav) == 0
    assert capsys.readouterr().out.startswith(f"{wav}: speaker")
    assert downstream("-e", stray, "-n", "more", "-o", "trainer.max_steps=22") == 0
    assert json.loads((tmp_path / "more" / "metrics.json").read_text())["steps"] == 22


def test_frozen_leaves_the_upstream_alone_and_fine_tuning_changes_it(downstream, tmp_path, pretrained, speakers):
    before = torch.load(pretrained / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, flags in (("frozen", ["-f", "False"]), ("tuned", ["-f"])):
        downstream("-n", name, "-u", "aalbert", "-k", pretrained, *flags, *speakers)
        after = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        same = [
            torch.equal(value, after[f"features.upstream.{key}"])
            for key, value in before.items()
            if key.startswith("model.encoder.")
        ]
        assert all(same) if name == "frozen" else not any(same)


@pytest.mark.parametrize(
    ("fine_tune", "zeroed", "settings", "strategy"),
    [
        (True, False, {"devices": 2}, "ddp_find_unused_parameters_true"),
        (True, False, {"devices": 2, "strategy": "ddp"}, "ddp_find_unused_parameters_true"),
        (True, False, {"devices": 2, "strategy": "fsdp"}, "fsdp"),
        (True, False, {"devices": 1}, None),
        (False, False, {"devices": 2}, None),
        (False, True, {"devices": 2}, "ddp_find_unused_parameters_true"),
    ],
)
def test_training_in_several_processes_allows_for_weights_without_gradients(
    monkeypatch, fine_tune, zeroed, settings, strategy
):
    taken = {}
    monkeypatch.setattr(
        "mynah.downstream.training.build_trainer", lambda arguments, *_, **__: taken.update(arguments)
    )
    features = SimpleNamespace(zeroed=zeroed)
    config = SimpleNamespace(trainer={"max_steps": 5, **settings}, checkpoint=None, features=features)
    module = SimpleNamespace(
        config=config,
        experiment=None,
        features=SimpleNamespace(fine_tune=fine_tune),
        expert=SimpleNamespace(mode="max", monitor="m"),
    )
    training._make_trainer(TaskOptions(device="cpu"), module)
    assert taken.get("strategy") == strategy
    assert taken["val_check_interval"] == 5


def test_baselines_and_layer_choices_work(downstream, tmp_path, pretrained, speakers):
    assert downstream("-n", "fbank", "-u", "fbank", *speakers) == 0
    assert downstream("-n", "layer", "-u", "aalbert", "-k", pretrained, "-l", "2", *speakers) == 0
    assert downstream("-n", "last", "-u", "aalbert", "-k", pretrained, "-s", "last_hidden_state", *speakers) == 0
    with pytest.raises(UserError, match="9 is not one of the upstream's 7 hidden states"):
        downstream("-n", "none", "-u", "aalbert", "-k", pretrained, "-l", "9", *speakers)


def test_a_task_of_another_modality_is_refused_before_any_data_is_read(downstream, tmp_path, pretrained):
    plugin = tmp_path / "plugins" / "downstream" / "silent_film"
    plugin.mkdir(parents=True)
    example = mynah.ROOT / "downstream" / "example"
    text = (
        (example / "expert.py")
        .read_text()
        .replace("    Config = Config", '    modality = "video"\n    Config = Config')
    )
    (plugin / "expert.py").write_text(text)
    (plugin / "config.yaml").write_text((example / "config.yaml").read_text())
    with pytest.raises(UserError, match="upstream 'aalbert' reads speech, but task 'silent_film' needs video"):
        downstream(
            *("-n", "x", "-u", "aalbert", "-k", pretrained, "-d", "silent_film"),
            *("--plugin-path", tmp_path / "plugins", "-o", "datarc.file_path=/does/not/exist.csv"),
        )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "defines no class DownstreamExpert"),
        (
            "from mynah.downstream import interfaces as i\n\n\nclass DownstreamExpert(i.DownstreamExpert): pass\n",
            "lacks forward, get_dataset, log_records, predict, state, use_demo_data",
        ),
    ],
)
def test_an_unfinished_task_says_what_it_lacks(downstream, tmp_path, code, words):
    name = f"unfinished_{len(code)}"  # modules are imported once
    plugin = tmp_path / "plugins" / "downstream" / name
    plugin.mkdir(parents=True)
    (plugin / "expert.py").write_text(code)
    with pytest.raises(UserError, match=words):
        downstream("-n", "x", "-u", "fbank", "-d", name, "--plugin-path", tmp_path / "plugins")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-n", "x", "-u", "aalbert"], "-d NAME is needed"),
        (["-n", "x", "-d", "example"], "-u NAME is needed"),
        (
            ["-n", "x", "-u", "fbank", "-d", "speaker"],
            "unknown downstream 'speaker'; available: asr_ctc, emotion, example",
        ),
        (["-m", "inference"], "needs --input"),
        (["-m", "inference", "--input", "a.wav"], "needs -e DIR_OR_CKPT"),
        (["-m", "evaluate", "-e", "nowhere"], "nowhere: no such checkpoint"),
        (["-n", "x", "-u", "fbank", "-k", "some.ckpt", "-d", "example"], "fbank has no weights"),
    ],
)
def test_mistakes_on_the_command_line_are_told(downstream, arguments, words):
    with pytest.raises(UserError, match=words):
        downstream(*arguments)


def test_an_upstream_checkpoint_is_no_trained_task(downstream, pretrained):
    with pytest.raises(UserError, match=r"holds an upstream checkpoint.*expected a task"):
        downstream("-m", "evaluate", "-e", pretrained)
