"""Runs that are killed, interrupted, out of disk, or spread over processes end where an undisturbed run ends."""

import hashlib
import os
import random
import resource
import signal
import textwrap
import time

import pytest
import torch

KILLS = 2


def load(path):
    return torch.load(path, weights_only=True)


def assert_same_run(one, other):
    """Bit for bit the same weights, optimizer state and validation history."""
    assert one["global_step"] == other["global_step"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    for index, state in one["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, other["optimizer_states"][0]["state"][index][name]), (index, name)
    assert one["callbacks"]["SaveStates"]["best"] == other["callbacks"]["SaveStates"]["best"] is not None


def wait_for(path, seconds=90.0):
    deadline = time.monotonic() + seconds
    while not path.is_file():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


@pytest.fixture
def pretrain(tmp_path, tiny_pretraining):
    """The command line of a tiny run by name."""

    def command(name, *overrides, flags=()):
        options = ("-n", name, "-u", "aalbert", "-p", str(tmp_path), *flags)
        return ["run_pretrain.py", *options, "-o", *tiny_pretraining, "trainer.max_steps=120", *overrides]

    return command


def test_a_killed_run_resumes_to_the_very_weights_of_an_uninterrupted_one(tmp_path, start, script, pretrain):
    status, output = script(*pretrain("whole"))
    assert status == 0, output
    whole = load(tmp_path / "whole" / "checkpoints" / "last.ckpt")

    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    for _ in range(KILLS):
        before = last.stat().st_mtime_ns if last.is_file() else 0
        process = start(*pretrain("killed", flags=["-a"]), forked=True)
        wait_for(last)
        deadline = time.monotonic() + 90
        while last.stat().st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert load(last)["global_step"] < whole["global_step"], "killed too late to show anything"

    status, output = script("run_pretrain.py", "-e", str(tmp_path / "killed"))
    assert status == 0, output
    assert_same_run(whole, load(last))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state_and_says_how_to_go_on(tmp_path, start, pretrain, number):
    process = start(*pretrain("asked", "checkpoint.save_every_n_steps=1"), forked=True)
    last = tmp_path / "asked" / "checkpoints" / "last.ckpt"
    wait_for(last)
    process.send_signal(number)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert f" -e {tmp_path / 'asked'}" in output
    step = load(last)["global_step"]
    assert 0 < step < 120 and f"stopped at step {step} of 120" in output


def test_ctrl_c_in_a_terminal_saves_although_it_reaches_the_workers_too(tmp_path, start, pretrain):
    more = ["checkpoint.save_every_n_steps=1", "dataloader.num_workers=2", "trainer.accumulate_grad_batches=2"]
    process = start(*pretrain("asked", *more, "trainer.val_check_interval=100", "trainer.max_steps=100000"))
    last = tmp_path / "asked" / "checkpoints" / "last.ckpt"
    wait_for(last)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    step = load(last)["global_step"]
    assert step > 0 and f"stopped at step {step} of 100000" in output


def test_ctrl_c_before_the_first_step_says_how_to_begin_again(tmp_path, start, script, pretrain):
    command = pretrain("early", "trainer.max_steps=2", "dataloader.num_workers=2", flags=["-a"])
    interrupting = """
        import os, signal, sys
        sys.path.insert(0, os.getcwd())
        from mynah.commands.pretrain import main
        from mynah.utility.acoustic.pretraining import AcousticPretraining
        AcousticPretraining.validation_step = lambda *_: os.killpg(0, signal.SIGINT)
        main(arguments=sys.argv[1:])
    """
    status, output = script("-c", textwrap.dedent(interrupting), *command[1:])
    assert status == 130, output
    assert "before anything was saved; give the same command again, with -a" in output and "Traceback" not in output
    status, output = script(*command)
    assert status == 0, output


def test_a_full_disk_leaves_the_earlier_checkpoints_good(tmp_path, script, pretrain):
    status, output = script(*pretrain("run", "trainer.max_steps=10"))
    assert status == 0, output
    checkpoints = tmp_path / "run" / "checkpoints"
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoints.iterdir()}
    assert "last.ckpt" in before

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # inherited: no file may grow beyond 100 kB
    try:
        status, output = script(
            "run_pretrain.py", "-e", str(tmp_path / "run"), "-o", "trainer.max_steps=40", fresh=True
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2 and "could not be saved" in output and "Traceback" not in output, output
    after = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoints.iterdir()}
    assert after == before


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_utterances(tmp_path, script, pretrain):
    broken = ["optimizer.lr=1e30", "scheduler.num_warmup_steps=0", "checkpoint.save_every_n_steps=1"]
    status, output = script(*pretrain("run", *broken))
    assert status == 2 and "Traceback" not in output, output
    assert "the loss became" in output and "at step 2" in output and ".wav" in output
    weights = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert weights["global_step"] == 1
    assert all(value.isfinite().all() for value in weights["state_dict"].values())


def test_two_processes_take_the_steps_of_one_with_the_whole_batch(tmp_path, script, pretrain):
    # Plain gradient descent: Adam would blow up the rounding error of a bias whose L1 gradients cancel to nothing.
    same = ["model.hidden_dropout_prob=0", "trainer.max_steps=6", "trainer.accelerator=cpu", "optimizer.name=sgd"]
    status, output = script(*pretrain("one", *same, "dataloader.batch_size=4"))
    assert status == 0, output
    two = ["dataloader.batch_size=2", "trainer.devices=2", "trainer.strategy=ddp"]
    status, output = script(*pretrain("two", *same, *two))
    assert status == 0, output
    one, two = (load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("one", "two"))
    assert one["global_step"] == two["global_step"] == 6
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(value, two["state_dict"][key], atol=1e-5, rtol=0, msg=key)
    start_of = [run["mynah"]["first_val_loss"] for run in (one, two)]
    assert start_of[0] == pytest.approx(start_of[1], rel=1e-5)
