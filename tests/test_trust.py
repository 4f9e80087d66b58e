"""What an experiment promises: its folder is its own, its data stay its data, and it says where it comes from."""

import hashlib
import json
import os
import re
import shutil
import signal
import textwrap
import time
from pathlib import Path

import pytest
import torch

from mynah.commands import pretrain as run_pretrain
from mynah.utility.errors import UserError


def read_json(path):
    return json.loads(path.read_text())


@pytest.fixture
def pretrain(tmp_path, tiny_pretraining):
    """pretrain("-n", ..., overrides=[...]) runs the program in this process."""

    def run(*arguments, overrides=(), data=True):
        options = ["-p", str(tmp_path), *arguments]
        given = [*(tiny_pretraining if data else []), *overrides]
        return run_pretrain.run(run_pretrain.parse_arguments("p", [*options, *(["-o", *given] if given else [])]))

    return run


@pytest.fixture
def begun(pretrain, tmp_path):
    """A run of four steps that could go on."""
    four_steps = ["trainer.max_steps=4", "trainer.val_check_interval=4"]
    assert pretrain("-n", "run", "-u", "aalbert", overrides=four_steps) == 0
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=5", "seed is 5, was 1337"),
        ("dataloader.batch_size=3", r"dataloader.batch_size x processes is 3, was 4"),
        ("trainer.accumulate_grad_batches=1", "trainer.accumulate_grad_batches is 1, was 2"),
        ("datarc.max_timestep=9000", "datarc.max_timestep is 9000, was 8000"),
        ("masking.mask_proportion=0.5", "masking.mask_proportion is 0.5, was"),
    ],
)
def test_another_stream_of_batches_is_refused_unless_allowed(pretrain, begun, caplog, change, said):
    more = [change, "trainer.max_steps=6"]
    with pytest.raises(UserError, match=rf"{said}.*--allow-changes"):
        pretrain("-e", str(begun), overrides=more, data=False)
    assert pretrain("-e", str(begun), "--allow-changes", overrides=more, data=False) == 0
    assert re.search(f"allowed: {said}", caplog.text)


def test_another_corpus_is_refused_and_a_moved_one_is_not(pretrain, begun, corpus, tmp_path):
    moved = shutil.copytree(corpus, tmp_path / "moved")
    where = f"datarc.file_path={{tones: {moved}}}"
    assert pretrain("-e", str(begun), overrides=[where, "trainer.max_steps=5"], data=False) == 0
    next(iter(sorted(moved.rglob("*.wav")))).unlink()
    with pytest.raises(UserError, match=r"the (training|held-out) data is another.*--allow-changes"):
        pretrain("-e", str(begun), overrides=[where, "trainer.max_steps=6"], data=False)


def test_fewer_steps_than_are_done_are_refused(pretrain, begun):
    with pytest.raises(UserError, match=r"trainer\.max_steps=2: .*last\.ckpt is at step 4 already"):
        pretrain("-e", str(begun), overrides=["trainer.max_steps=2"], data=False)


def test_a_moved_experiment_keeps_its_best_checkpoint(pretrain, begun, tmp_path):
    copy = shutil.copytree(begun, tmp_path / "copy")
    best = copy / "checkpoints" / "best.ckpt"
    state = torch.load(copy / "checkpoints" / "last.ckpt", weights_only=True)
    state["callbacks"]["SaveStates"]["best"]["score"] = -1.0  # better than whatever comes
    torch.save(state, copy / "checkpoints" / "last.ckpt")
    before = best.read_bytes()
    assert pretrain("-e", str(copy), overrides=["trainer.max_steps=8"], data=False) == 0
    assert best.read_bytes() == before
    assert str(tmp_path) not in json.dumps(state["callbacks"])


def test_going_on_from_an_earlier_state_takes_no_later_best_for_its_own(pretrain, tmp_path, caplog):
    kept = ["checkpoint.keep_every_n_steps=2", "trainer.val_check_interval=4", "trainer.max_steps=6"]
    pretrain("-n", "run", "-u", "aalbert", overrides=[*kept, "optimizer.lr=1e-2"])
    earlier = tmp_path / "run" / "checkpoints" / "step-2.ckpt"
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    state = torch.load(best, weights_only=True)
    assert state["global_step"] > 2  # a later one than the state that is gone on from knows
    pretrain("-e", str(earlier), overrides=["trainer.max_steps=3"], data=False)
    assert "best.ckpt is not of step 2, at which this run was at its best" in caplog.text
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["best_step"] == torch.load(best, weights_only=True)["global_step"] == 3


def test_a_model_given_again_with_a_is_compared(pretrain, begun, tmp_path):
    file = tmp_path / "model.yaml"
    file.write_text("model: {hidden_act: relu}\n")
    command = ["-n", "run", "-a", "-u", "aalbert", "-g", str(file)]
    with pytest.raises(UserError, match=r"model\.hidden_act=relu: the weights in"):
        pretrain(*command, overrides=["trainer.max_steps=6", "trainer.val_check_interval=4"])


def test_a_run_without_its_last_checkpoint_goes_on_rather_than_begin_anew(pretrain, begun, capsys):
    (begun / "checkpoints" / "last.ckpt").unlink()
    command = ["-n", "run", "-a", "-u", "aalbert"]
    assert pretrain(*command, overrides=["trainer.max_steps=6", "trainer.val_check_interval=4"]) == 0
    legs = read_json(begun / "run.json")["legs"]
    assert legs[0]["first_step"] == 0 and legs[1]["first_step"] > 0


def test_an_experiment_killed_before_its_first_checkpoint_is_begun_with_a(pretrain, begun):
    shutil.rmtree(begun / "checkpoints")
    with pytest.raises(UserError, match=r"ended before its first checkpoint; give the command .* with -a"):
        pretrain("-e", str(begun), data=False)
    assert pretrain("-n", "run", "-a", "-u", "aalbert", overrides=["trainer.max_steps=2"]) == 0


def test_run_json_tells_command_data_checkpoint_and_versions(begun, pretrain, tmp_path):
    record = read_json(begun / "run.json")
    [leg] = record["legs"]
    assert record["upstream"] == "aalbert" and "tones" in record["data"]["file_path"]
    assert record["data"]["fingerprints"].keys() == {"training", "held-out"}
    assert leg["finished"] and leg["last_step"] == 4 and leg["versions"]["torch"] == torch.__version__.split("+")[0]
    pretrain("-n", "other", "-u", "aalbert", "--init-from", str(begun), overrides=["trainer.max_steps=1"])
    origin = read_json(tmp_path / "other" / "run.json")["init_from"]
    last = (begun / "checkpoints" / "last.ckpt").read_bytes()
    assert origin["given"] == str(begun) and origin["sha256"] == hashlib.sha256(last).hexdigest()


@pytest.mark.parametrize(
    "name", [" ", "a\nb", "-x", ".hidden", "x" * 300, "tab\there", "ends ", "a/b", "..", "\x1b[31mred"]
)
def test_odd_names_are_refused(pretrain, tmp_path, name):
    with pytest.raises(UserError, match="-n "):
        pretrain(f"-n{name}", "-u", "aalbert")
    assert list(tmp_path.iterdir()) == []


HARMFUL = {
    "trainer.gradient_clip_val=-5": "gradient_clip_val",
    "trainer.gradient_clip_val=.inf": "gradient_clip_val",
    "trainer.max_steps=1000000000000000000000": "max_steps",
    "trainer.max_steps=1e21": "max_steps",
    "trainer.limit_val_batches=-1": "limit_val_batches",
    "trainer.limit_val_batches=1.5": "limit_val_batches",
    "trainer.devices=0": "devices",
    "trainer.devices=-3": "devices",
    "trainer.devices=1.5": "devices",
    "trainer.num_nodes=0": "num_nodes",
    "trainer.enable_progress_bar=5": "enable_progress_bar",
    "trainer.deterministic=sometimes": "deterministic",
    "trainer.min_steps=-1": "min_steps",
    "trainer.max_time=-1": "max_time",
    "trainer.max_time=forever": "max_time",
    "trainer.gradient_clip_algorithm=max": "gradient_clip_algorithm",
    "trainer.limit_val_batches=1e12": "limit_val_batches",
    "trainer.log_every_n_steps=0": "log_every_n_steps",
    "trainer.val_check_interval=-2": "val_check_interval",
    "trainer.accumulate_grad_batches=0": "accumulate_grad_batches",
    "optimizer.lr=.inf": "lr",
    "optimizer.lr=.nan": "lr",
    "optimizer.lr=-1": "lr",
    "optimizer.eps=.inf": "eps",
    "optimizer.weight_decay=.inf": "weight_decay",
    "optimizer.betas=[0.9, 1.0]": "betas",
    "masking.mask_proportion=1": "mask_proportion",
    "masking.mask_proportion=1e-9": "mask_proportion",
    "features.spectrogram.hop_ms=30": "hop_ms",
    "features.spectrogram.hop_ms=0": "hop_ms",
    "features.spectrogram.n_mels=5000": "n_mels",
    "dataloader.num_workers=5000": "num_workers",
    "dataloader.batch_size=0": "batch_size",
    "seed=-1": "seed",
    "seed=99999999999999999999": "seed",
    "datarc.valid_fraction=1": "valid_fraction",
    "datarc.min_timestep=0": "min_timestep",
    "model.hidden_size=-4": "hidden_size",
    "checkpoint.save_every_n_steps=0": "save_every_n_steps",
    "datarc.file_path={tones: ''}": "file_path",
    "scheduler.warmup_fraction=2": "warmup_fraction",
}


@pytest.mark.parametrize("override", HARMFUL)
def test_values_that_do_harm_are_refused_before_anything_is_written(pretrain, tmp_path, override):
    with pytest.raises(UserError, match=HARMFUL[override]) as error:
        pretrain("-n", "run", "-u", "aalbert", overrides=[override])
    assert len(str(error.value).splitlines()) <= 4
    assert not (tmp_path / "run").exists()


def test_a_pipe_and_a_deep_file_are_no_configurations(pretrain, tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match=r"pipe\.yaml:\n.*not a regular file"):
        pretrain("-n", "run", "-u", "aalbert", "-c", str(tmp_path / "pipe.yaml"))
    (tmp_path / "deep.yaml").write_text("model: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(UserError, match="nests more deeply than any configuration"):
        pretrain("-n", "run", "-u", "aalbert", "-c", str(tmp_path / "deep.yaml"))


def test_a_key_given_twice_is_said(pretrain, caplog):
    pretrain("-n", "run", "-u", "aalbert", overrides=["trainer.max_steps=1", "seed=3", "seed=4"])
    assert "-o seed is given twice: 3, then 4; the last one holds" in caplog.text


def test_weights_that_the_last_step_spoilt_are_not_called_finished(pretrain, tmp_path):
    broken = ["optimizer.lr=1e38", "scheduler.num_warmup_steps=0", "scheduler.name=constant", "trainer.max_steps=1"]
    with pytest.raises(UserError, match=r"the weights have become NaN or infinite|the loss became"):
        pretrain("-n", "run", "-u", "aalbert", overrides=[*broken, "optimizer.weight_decay=1e10"])
    assert not (tmp_path / "run" / "metrics.json").exists()


# -- signals -------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, tiny_pretraining):
    """The command line of a long run with workers."""
    more = ["trainer.max_steps=100000", "checkpoint.save_every_n_steps=1", "dataloader.num_workers=2"]
    return ["-n", "run", "-u", "aalbert", "-p", str(tmp_path), "-o", *tiny_pretraining, *more]


def wait_for_checkpoint(process, folder):
    while not (folder / "checkpoints" / "previous.ckpt").is_file():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def test_a_second_run_of_the_same_name_is_refused_while_the_first_goes_on(start, script, command, tmp_path):
    process = start("run_pretrain.py", *command, forked=True)
    wait_for_checkpoint(process, tmp_path / "run")
    for arguments in (["-e", str(tmp_path / "run")], [*command, "trainer.max_steps=5", "-a"]):
        status, output = script("run_pretrain.py", *arguments)
        assert status == 2 and f"being written by process {process.pid} on" in output, output
        assert len(output.splitlines()) == 1
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped at step" in output


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_the_end_of_a_terminal_saves_the_state(start, command, tmp_path, number):
    process = start("run_pretrain.py", *command, forked=True)
    wait_for_checkpoint(process, tmp_path / "run")
    os.killpg(process.pid, number) if number == signal.SIGHUP else process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output, output
    assert "stopped at step" in output and f"-e {tmp_path / 'run'}" in output


def test_a_killed_worker_ends_the_run_in_one_line(start, command, tmp_path):
    process = start("run_pretrain.py", *command, forked=True)
    wait_for_checkpoint(process, tmp_path / "run")
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in output, output
    assert "a process that reads the data" in output and f"-e {tmp_path / 'run'}" in output


def test_two_interruptions_end_at_once_with_the_saved_step(start, command, tmp_path):
    process = start("run_pretrain.py", *command, forked=True)
    wait_for_checkpoint(process, tmp_path / "run")
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output, output
    assert re.search(r"(stopped at step \d+ of|the state of step|interrupted; step \d+ is saved)", output)


def test_ctrl_c_held_down_is_answered_once_and_without_a_traceback(start, command, tmp_path):
    process = start("run_pretrain.py", *command, forked=True)
    wait_for_checkpoint(process, tmp_path / "run")
    for _ in range(30):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.005)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output, output
    assert f"-e {tmp_path / 'run'}" in output


def test_a_folder_that_is_removed_or_moved_under_a_run_ends_it_in_one_line(start, command, tmp_path):
    more = ["dataloader.num_workers=0", "trainer.log_every_n_steps=1"]
    process = start("run_pretrain.py", *command, *more, forked=True)
    wait_for_checkpoint(process, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in output, output
    assert "moved or changed" in output or "could not be saved" in output


def test_a_file_in_the_place_of_a_folder_is_one_line(pretrain, begun):
    shutil.rmtree(begun / "tensorboard")
    (begun / "tensorboard").touch()
    with pytest.raises(UserError, match=r"tensorboard: File exists; was the experiment's folder moved or changed"):
        pretrain("-e", str(begun), overrides=["trainer.max_steps=6"], data=False)


def test_an_interruption_during_the_imports_is_one_line(script):
    code = """
        import os, signal, sys
        sys.path.insert(0, os.getcwd())
        from importlib import abc
        class Interrupt(abc.MetaPathFinder):
            def find_spec(self, name, *_):
                if name == "mynah.utility.training.allocator":
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Interrupt())
        from mynah.commands import start
        start("pretrain", "p", ["--list"])
    """
    status, output = script("-c", textwrap.dedent(code))
    assert status == 130 and output == "interrupted\n"
