"""run_pretrain.py as a user meets it: what it writes, what it refuses, and with which words."""

import json
import math
import os
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from mynah.commands import pretrain as run_pretrain
from mynah.utility.acoustic.pretraining import AcousticPretraining
from mynah.utility.errors import UserError
from mynah.utility.training import callbacks


@pytest.fixture
def pretrain(monkeypatch, tmp_path, tiny_pretraining):
    """pretrain(*arguments) runs the script in this process, below tmp_path, and returns its exit status."""

    def run(*arguments, overrides=()):
        options = ["-o", *tiny_pretraining, "model.num_hidden_groups=1", "trainer.max_steps=6", *overrides]
        command = ["run_pretrain.py", "-p", str(tmp_path), *arguments, *options]
        monkeypatch.setattr(sys, "argv", command)
        return run_pretrain.run(run_pretrain.parse_arguments())

    return run


@pytest.mark.parametrize("upstream", ["aalbert", "mockingjay"])
def test_a_run_writes_what_the_documentation_says(pretrain, tmp_path, upstream):
    more = ["logging.pictures_every_n_steps=3", "trainer.val_check_interval=8", "trainer.log_every_n_steps=2"]
    assert pretrain("-n", "run", "-u", upstream, overrides=more) == 0
    folder = tmp_path / "run"
    for name in ("pretrain_config.yaml", "model_config.yaml", "metrics.json", "reconstruction.png", "attention.png"):
        assert (folder / name).is_file(), name
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    scalars = {
        "loss",
        "lr-AdamW/model/matrices",
        "lr-AdamW/model/vectors",
        "gradient_norm",
        "audio_seconds_per_second",
        "val_loss",
    }
    assert scalars <= set(events.Tags()["scalars"])
    assert {"reconstruction", "attention"} <= set(events.Tags()["images"])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 6 and metrics["finished"]
    assert metrics["val_loss"] > 0 and math.isfinite(metrics["val_loss"])
    assert yaml.safe_load((folder / "model_config.yaml").read_text())["model"]["hidden_size"] == 16
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["mynah"]["upstream"] == upstream
    assert any(key.startswith("model.objective.") for key in checkpoint["state_dict"])


def test_training_lowers_the_validation_loss(pretrain, tmp_path):
    more = ["trainer.max_steps=100", "model.hidden_dropout_prob=0", "model.hidden_size=64"]
    pretrain("-n", "run", "-u", "aalbert", overrides=more)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["val_loss"] < 0.98 * metrics["val_loss_at_start"]


def test_an_experiment_is_never_overwritten(pretrain):
    assert pretrain("-n", "run", "-u", "aalbert") == 0
    with pytest.raises(UserError, match=r"'run' exists already .* -a goes on"):
        pretrain("-n", "run", "-u", "aalbert")
    assert pretrain("-n", "run", "-u", "aalbert", "-a") == 0


@pytest.mark.parametrize(
    ("arguments", "overrides", "words"),
    [
        (
            [],
            ["model.intermediate_size=48"],
            r"intermediate_size=48: .*last\.ckpt were trained otherwise",
        ),
        ([], ["optimizer.lr=5e-4"], r"optimizer\.lr=0\.0005: a resumed run goes on with the optimizer"),
        (["-g", "model.yaml"], [], "-g is for a new run"),
        (["--init-from", "other"], [], "--init-from is for a new run"),
    ],
)
def test_what_a_resumed_run_cannot_change_is_refused_and_spoils_nothing(
    pretrain, tmp_path, arguments, overrides, words
):
    pretrain("-n", "run", "-u", "aalbert")
    with pytest.raises(UserError, match=words):
        pretrain("-e", str(tmp_path / "run"), *arguments, overrides=overrides)
    assert pretrain("-e", str(tmp_path / "run")) == 0


def test_a_start_that_lightning_refuses_leaves_the_name_free(pretrain):
    with pytest.raises(UserError, match="Lightning refuses"):
        pretrain("-n", "run", "-u", "aalbert", overrides=["trainer.strategy=foo"])
    assert pretrain("-n", "run", "-u", "aalbert") == 0


def test_init_from_takes_the_weights_and_starts_at_step_zero(pretrain, tmp_path):
    pretrain("-n", "first", "-u", "aalbert")
    first = tmp_path / "first"
    pretrain("-n", "second", "-u", "aalbert", "--init-from", str(first), overrides=["optimizer.lr=1e-30"])
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("first", "second")
    ]
    assert weights[1]["global_step"] == 6
    for key, value in weights[0]["state_dict"].items():
        torch.testing.assert_close(weights[1]["state_dict"][key], value)


def test_a_model_configuration_file_goes_on_top_of_the_plugins_own(pretrain, tmp_path):
    file = tmp_path / "model.yaml"
    file.write_text("model: {frames_per_position: 5}\n")
    pretrain("-n", "run", "-u", "aalbert", "-g", str(file))
    written = yaml.safe_load((tmp_path / "run" / "model_config.yaml").read_text())
    assert written["model"]["frames_per_position"] == 5 and written["features"]["input"]["num_deltas"] == 1


@pytest.mark.parametrize(
    ("recipe", "proportion", "probability"), [("base", 0.15, 1.0), ("small", 0.5, 1.0), ("demo", 0.15, 0.8)]
)
def test_recipes_are_taken_by_name_with_the_users_own_data(
    pretrain, tmp_path, corpus, recipe, proportion, probability
):
    assert pretrain("-n", "run", "-u", "aalbert", "-c", recipe, overrides=["trainer.max_steps=1"]) == 0
    written = yaml.safe_load((tmp_path / "run" / "pretrain_config.yaml").read_text())
    assert written["datarc"]["file_path"] == {"tones": str(corpus)}
    assert written["masking"]["mask_proportion"] == proportion
    assert written["masking"]["zero_probability"] == probability
    assert written["features"]["input"]["num_deltas"] == 1  # as all recipes of aalbert have it


def test_an_unknown_recipe_is_refused_with_those_there_are(pretrain):
    with pytest.raises(UserError, match="-c smal: neither a file nor a recipe of aalbert; its recipes are base, sm"):
        pretrain("-n", "run", "-u", "aalbert", "-c", "smal")


def test_all_mistakes_of_a_configuration_are_told_at_once_before_anything_is_written(pretrain, tmp_path):
    mistakes = ["model.hiden_size=3", "optimizer.lr=fast", "trainer.max_step=9", "masking.mask_proportion=2"]
    with pytest.raises(UserError) as caught:
        pretrain("-n", "run", "-u", "aalbert", overrides=mistakes)
    message = str(caught.value)
    assert "model.hiden_size: unknown key; did you mean model.hidden_size?" in message
    assert "optimizer.lr: expected a number" in message
    assert "trainer.max_step: unknown key; did you mean trainer.max_steps?" in message
    assert "masking.mask_proportion" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-n", "run", "-u", "albert"], "unknown upstream 'albert'; available: aalbert, .*did you mean aalbert"),
        (["-n", "run"], "-u NAME is needed"),
        (["-u", "aalbert"], "-n NAME is needed"),
        (["-n", "run", "-u", "fbank"], "nothing to pretrain"),
        (["-e", "nowhere"], "nowhere: no such checkpoint"),
        (["-n", "run", "-u", "aalbert", "--plugin-path", "nowhere"], "plugin path nowhere does not exist"),
        (["-n", "run", "-u", "aalbert", "-c", "nowhere.yaml"], "nowhere.yaml.*\n.*no such file"),
    ],
)
def test_mistakes_on_the_command_line_are_told(pretrain, arguments, words):
    with pytest.raises(UserError, match=words):
        pretrain(*arguments)


def test_a_held_out_batch_that_cannot_be_read_is_named_and_left_out(pretrain, tmp_path, corpus):
    shutil.copytree(corpus, tmp_path / "corpus")
    for number in range(4):
        wav = np.full(16000, np.nan, dtype="float32")
        soundfile.write(tmp_path / "corpus" / f"nan{number}.wav", wav, 16000, subtype="FLOAT")
    more = [f"datarc.file_path={{tones: {tmp_path / 'corpus'}}}", "datarc.max_bad_fraction=0.5"]
    more += ["datarc.valid_fraction=0.9", "dataloader.eval_batch_size=1"]
    assert pretrain("-n", "run", "-u", "aalbert", overrides=more) == 0
    assert "nan" in (tmp_path / "run" / "skipped_files.txt").read_text()
    assert math.isfinite(json.loads((tmp_path / "run" / "metrics.json").read_text())["val_loss"])


def test_a_run_that_its_time_limit_ends_is_not_finished(pretrain, tmp_path):
    more = ["trainer.max_steps=1000000", "trainer.max_time=00:00:00:01"]
    assert pretrain("-n", "run", "-u", "aalbert", overrides=more) == 130
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["finished"] is False


def test_a_seed_too_large_for_torch_is_refused(pretrain):
    with pytest.raises(UserError, match="seed: expected from 0 to 4294967295"):
        pretrain("-n", "run", "-u", "aalbert", "--seed", str(2**32))
    assert pretrain("-n", "run", "-u", "aalbert", "--seed", str(2**32 - 1)) == 0


def test_a_missing_corpus_is_named(pretrain, tmp_path):
    with pytest.raises(UserError, match=rf"corpus gone: .*{tmp_path}/gone"):
        pretrain("-n", "run", "-u", "aalbert", overrides=[f"datarc.file_path={{gone: {tmp_path}/gone}}"])


def test_a_checkpoint_of_another_upstream_is_refused(pretrain, tmp_path):
    pretrain("-n", "one", "-u", "mockingjay")
    with pytest.raises(UserError, match=r"last\.ckpt: holds upstream 'mockingjay', but 'aalbert' was asked for"):
        pretrain("-n", "two", "-u", "aalbert", "--init-from", str(tmp_path / "one"))


def test_a_user_mistake_ends_the_script_without_a_traceback(script, tmp_path):
    status, output = script("run_pretrain.py", "-n", "run", "-u", "albert", "-p", str(tmp_path), fresh=True)
    assert status == 2
    assert output.startswith("error: unknown upstream 'albert'") and "Traceback" not in output


def test_listing_the_plugins_does_not_import_lightning(script):
    code = (
        "import sys; sys.argv = ['mynah', 'pretrain', '--list']\n"
        "from mynah.commands import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'lightning' not in sys.modules"
    )
    status, output = script("-c", code)
    assert status == 0, output
    assert "aalbert " in output and "voxceleb1_speaker " in output


def test_the_progress_bar_counts_optimizer_steps_of_the_whole_run(pretrain, tmp_path, capsys):
    more = ["trainer.enable_progress_bar=true", "trainer.accumulate_grad_batches=2"]
    pretrain("-n", "run", "-u", "aalbert", overrides=more)
    assert "steps: 100%" in (shown := capsys.readouterr().err) and "6/6" in shown and "Epoch" not in shown
    command = ["run_pretrain.py", "-e", str(tmp_path / "run"), "-o", "trainer.max_steps=8"]
    sys.argv[:] = command
    run_pretrain.run(run_pretrain.parse_arguments())
    shown = capsys.readouterr().err
    assert "8/8" in shown and "0/8" not in shown


def test_processes_with_unequal_numbers_of_validation_batches_do_not_wait_for_each_other(script, tmp_path, corpus):
    """DistributedDataParallel broadcasts buffers in the first one alone, which every process has."""
    options = [
        *(f"datarc.file_path={{tones: {corpus}}}", "datarc.max_timestep=8000", "datarc.min_timestep=4000"),
        *("datarc.valid_fraction=0.15", "dataloader.eval_batch_size=1", "dataloader.batch_size=4"),
        *("dataloader.num_workers=0", "model.hidden_size=16", "model.num_attention_heads=2"),
        *("model.intermediate_size=16", "model.num_hidden_layers=1", "trainer.max_steps=4"),
        *(
            "trainer.val_check_interval=2",
            "trainer.accumulate_grad_batches=1",
            "trainer.devices=2",
            "trainer.strategy=ddp",
            "trainer.accelerator=cpu",
        ),
    ]
    status, output = script("run_pretrain.py", "-n", "run", "-u", "aalbert", "-p", str(tmp_path), "-o", *options)
    assert status == 0, output
    held_out = int(re.search(r"(\d+) held out", output)[1])
    assert held_out % 2, "an even number shows nothing; choose another valid_fraction"
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["finished"]


def test_a_signal_saves_without_a_validation_off_schedule(pretrain, tmp_path, monkeypatch):
    validated_at = []

    def stop(self, *arguments):
        if self.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(self, *arguments)

    training_step, begin = AcousticPretraining.training_step, AcousticPretraining.on_validation_epoch_start
    monkeypatch.setattr(AcousticPretraining, "training_step", stop)
    monkeypatch.setattr(
        AcousticPretraining,
        "on_validation_epoch_start",
        lambda self: validated_at.append(self.global_step) or begin(self),
    )
    pretrain("-n", "run", "-u", "aalbert", overrides=["trainer.max_steps=20", "trainer.val_check_interval=1000"])
    assert validated_at == [0]  # before the first step
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not json.loads((tmp_path / "run" / "metrics.json").read_text())["finished"]


def test_a_validation_between_accumulated_batches_is_refused(pretrain):
    with pytest.raises(UserError, match="val_check_interval: must be a multiple of accumulate_grad_batches"):
        pretrain(
            "-n",
            "x",
            "-u",
            "aalbert",
            overrides=["trainer.val_check_interval=10", "trainer.accumulate_grad_batches=4"],
        )


def test_neither_another_seed_nor_a_resumed_run_trains_on_what_was_held_out(pretrain, tmp_path, monkeypatch):
    held_out = []
    prepare = AcousticPretraining.prepare
    monkeypatch.setattr(
        AcousticPretraining,
        "prepare",
        lambda self: prepare(self) or held_out.append({each.path for each in self.validation_items}),
    )
    for name, seed in (("one", 1), ("two", 2)):
        pretrain("-n", name, "-u", "aalbert", overrides=[f"seed={seed}", "trainer.max_steps=1"])
    assert held_out[0] == held_out[1] != set()
    for option in ("datarc.valid_fraction=0.1", "datarc.split_seed=3"):
        sys.argv[:] = ["run_pretrain.py", "-e", str(tmp_path / "one"), "-o", option, "trainer.max_steps=2"]
        with pytest.raises(UserError, match=f"{option}: would train on utterances or clips that .* has held out"):
            run_pretrain.run(run_pretrain.parse_arguments())


def test_of_a_validation_the_best_checkpoint_is_saved_before_the_last(pretrain, tmp_path, monkeypatch):
    saved = []
    save = callbacks.save_atomically
    monkeypatch.setattr(
        callbacks,
        "save_atomically",
        lambda state, path, *_: saved.append((path.name, state["global_step"])) or save(state, path, *_),
    )
    pretrain("-n", "run", "-u", "aalbert", overrides=["trainer.val_check_interval=4", "trainer.max_steps=2"])
    assert saved[:2] == [("best.ckpt", 2), ("last.ckpt", 2)]


@pytest.mark.parametrize("interval", [4, 100])
def test_the_validation_at_the_end_may_be_the_best(pretrain, tmp_path, interval):
    """Where it is not due within training: after more steps than that, or in a run shorter than that."""
    more = [f"trainer.val_check_interval={interval}", "trainer.max_steps=5", "model.hidden_dropout_prob=0"]
    pretrain("-n", "run", "-u", "aalbert", overrides=[*more, "optimizer.lr=3e-3"])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["best_step"], metrics["best_val_loss"]) == (5, metrics["val_loss"])
    best, last = (
        torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True) for name in ("best.ckpt", "last.ckpt")
    )
    assert best["global_step"] == last["global_step"] == 5
    assert best["mynah"]["last_val_loss"] == metrics["val_loss"]
    for saved in (best, last):
        assert saved["callbacks"]["SaveStates"]["best"]["score"] == metrics["val_loss"]
    pretrain("-n", "run", "-a", "-u", "aalbert", overrides=[*more, "optimizer.lr=3e-3"])  # changes nothing
    again = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {**again, "seconds": 0} == {**metrics, "seconds": 0}


def test_a_run_killed_between_its_best_and_its_last_checkpoint_keeps_the_best(pretrain, tmp_path, monkeypatch):
    def kill(state, path, *previous):
        if path.name == "last.ckpt" and state["global_step"] == 2:
            raise KeyboardInterrupt
        save(state, path, *previous)

    save = callbacks.save_atomically
    more = ["trainer.val_check_interval=4", "trainer.max_steps=3"]
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "save_atomically", kill)
        with pytest.raises(KeyboardInterrupt):
            pretrain("-n", "killed", "-u", "aalbert", overrides=more)
    pretrain("-n", "killed", "-a", "-u", "aalbert", overrides=more)
    pretrain("-n", "whole", "-u", "aalbert", overrides=more)
    folders = [tmp_path / name / "checkpoints" / "best.ckpt" for name in ("killed", "whole")]
    killed, whole = (torch.load(folder, weights_only=True) for folder in folders)
    assert killed["global_step"] == whole["global_step"]
    assert all(torch.equal(killed["state_dict"][key], whole["state_dict"][key]) for key in whole["state_dict"])


def test_a_configuration_without_data_and_without_a_demo_recipe_is_refused(monkeypatch, tmp_path):
    (tmp_path / "mine.yaml").write_text("trainer: {max_steps: 500000}\n")
    command = ["run_pretrain.py", "-p", str(tmp_path), "-n", "x", "-u", "aalbert", "-c", str(tmp_path / "mine.yaml")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(UserError, match=r"no data configured, and .*mine\.yaml has no section demo"):
        run_pretrain.run(run_pretrain.parse_arguments())
    assert not (tmp_path / "x").exists()


def test_a_compiled_encoder_ends_in_the_weights_of_one_that_is_not(pretrain, tmp_path, monkeypatch):
    compile_module, compiled = nn.Module.compile, []

    def compile_without_a_compiler(module):
        compiled.append(module)
        compile_module(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_without_a_compiler)
    for name, options in (("plain", []), ("compiled", ["compile=true"])):
        pretrain("-n", name, "-u", "aalbert", overrides=["trainer.max_steps=2", *options])
    plain, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "compiled")
    )
    assert len(compiled) == 1 and plain.keys() == other.keys()
    for name, weight in plain.items():
        torch.testing.assert_close(other[name], weight, atol=1e-6, rtol=1e-5)
