"""Processes that work on a table: interrupted, killed, two at once, with experiments that fail; all fabricated."""

import logging
import multiprocessing
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from mynah.tables.benchmark import notes_on
from mynah.tables.experiment import execute, is_taken
from mynah.tables.metrics import Metric
from mynah.tables.plan import FAILED
from mynah.tables.store import open_table
from mynah.tables.worker import Worker
from mynah.tables.writing import Grid, markdown

METRICS = {"emotion": Metric("accuracy", "max"), "sv": Metric("eer", "min")}
GIVEN = {"upstreams": ["fbank", "mel"], "tasks": ["emotion", "sv:emotion"], "lrs": [1e-3, 1e-2], "seeds": 2}


def trained(run, more=(), fabricate=None, reasons=None):
    """Fabricates an experiment whose numbers depend on its name alone."""
    numbers = random.Random(f"{run.title}")
    reason = (reasons or {}).get(run.row.label, "")
    fabricate(run, numbers.random(), numbers.random(), METRICS[run.column.label].key, reason)
    return True


def results(table, states):
    return markdown(Grid("t", table.config.upstreams, table.config.tasks, METRICS, states, notes_on(table)))


def test_a_table_that_is_interrupted_ends_as_one_that_is_not(table_of, tmp_path, fabricate):
    whole, broken = table_of(tmp_path / "a", **GIVEN), table_of(tmp_path / "b", **GIVEN)
    expected = results(whole, Worker(whole, METRICS, execute=partial(trained, fabricate=fabricate)).work())
    count = 0

    def interrupted(run, more):
        nonlocal count
        count += 1
        if count % 5 == 0:
            raise KeyboardInterrupt
        return trained(run, fabricate=fabricate)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Worker(broken, METRICS, execute=interrupted).work()
    states = Worker(broken, METRICS, execute=interrupted).work()
    assert results(broken, states) == expected
    assert count == sum(cell.num_runs for cell in Worker(whole, METRICS).cells) + 2 == 14


def test_a_failing_upstream_is_a_cell_with_its_reason_and_ends_nothing(table_of, fabricate, caplog):
    caplog.set_level(logging.INFO, "mynah")
    table = table_of(**GIVEN)
    broken = partial(trained, fabricate=fabricate, reasons={"mel": "no such\ncheckpoint | there"})
    states = Worker(table, METRICS, execute=broken).work()
    assert [state.status for state in states] == ["finished", FAILED, "finished", FAILED]
    text = results(table, states)
    assert text.count("failed [1]") == 2 and "[1] no such checkpoint \\| there" in text
    assert "FAILED emotion / mel, lr 0.001, seed 1: no such ..." in caplog.text
    assert "4 of 4 cells done, 2 of them failed" in caplog.text


def test_the_time_left_is_that_of_finished_experiments(table_of, fabricate, caplog):
    caplog.set_level(logging.INFO, "mynah")
    table = table_of(tasks=["emotion"], lrs=[1e-3, 1e-2], seeds=2)  # each takes 3 s, fabricated
    Worker(table, METRICS, execute=partial(trained, fabricate=fabricate)).work()
    lines = [record.message for record in caplog.records]
    assert lines[0] == "0 of 1 cells done, 3 experiments left"
    assert [line.rpartition("; ")[2] for line in lines if line.startswith("done")] == [
        "0 of 1 cells done, 2 experiments left, about 6 s to go",
        "0 of 1 cells done, 1 experiments left, about 3 s to go",
        "1 of 1 cells done",
    ]


def attempt(arguments, log, pause):
    """What an experiment's process does here in place of training: a note that it was run, and its metrics."""
    place = Path(arguments[arguments.index("-p") + 1], arguments[arguments.index("-n") + 1])
    with log.open("a") as file:
        file.write(f"{place}\n")
    time.sleep(pause)
    numbers = random.Random(place.name)
    key = METRICS[place.parts[-3]].key
    text = '{"dev": {"%s": %f}, "test": {"%s": %f}, "finished": true}'
    (place / "metrics.json").write_text(text % (key, numbers.random(), key, numbers.random()))
    return ""


def work_in_process(table, log, pause=0.1):
    """A process that works on the table with real claims."""

    def work():
        os.setpgid(0, 0)
        Worker(table, METRICS, execute=partial(execute, attempt=partial(attempt, log=log, pause=pause))).work()

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_two_processes_share_the_work_and_no_experiment_is_run_twice(table_of, tmp_path, monkeypatch):
    monkeypatch.setattr("mynah.tables.worker.POLL_SECONDS", 0.05)
    table, log = table_of(**GIVEN), tmp_path / "log"
    workers = [work_in_process(table, log), work_in_process(table, log)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    ran = log.read_text().split("\n")[:-1]
    assert len(ran) == len(set(ran)) == 12


def test_what_a_killed_process_was_at_is_taken_up_by_another(table_of, tmp_path, monkeypatch):
    monkeypatch.setattr("mynah.tables.worker.POLL_SECONDS", 0.05)
    table, log = table_of(upstreams=["fbank"], tasks=["emotion"]), tmp_path / "log"
    first = work_in_process(table, log, pause=60)
    (run,) = Worker(table, METRICS).states()[0].pending
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert is_taken(run)
    second = work_in_process(table, log, pause=0)
    time.sleep(0.3)
    assert second.is_alive() and len(log.read_text().splitlines()) == 1  # it waits
    os.killpg(first.pid, signal.SIGKILL)
    second.join(60)
    first.join(60)
    assert second.exitcode == 0 and len(log.read_text().splitlines()) == 2
    assert run.outcome().status == "finished" and not is_taken(run)


def test_an_experiment_that_dies_is_told_with_its_signal(table_of):
    table = table_of()
    (run,) = Worker(table, METRICS).states()[0].pending
    assert execute(run, attempt=lambda arguments: os.kill(os.getpid(), signal.SIGKILL))
    assert run.outcome().reason == "killed by the signal SIGKILL; was there too little memory?"


def test_an_experiment_is_a_process_that_no_launcher_started(table_of, monkeypatch):
    for name, value in {"RANK": "3", "SLURM_PROCID": "1", "WORLD_SIZE": "4", "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    (run,) = Worker(table_of(), METRICS).states()[0].pending
    left = ("RANK", "SLURM_PROCID", "WORLD_SIZE", "SLURM_NTASKS")
    execute(run, attempt=lambda arguments: " ".join(name for name in left if name in os.environ) or "none is left")
    assert run.outcome().reason == "none is left"


def test_no_experiment_begins_with_another_checkpoint_than_its_row_had(tmp_path, config_of):
    checkpoint = tmp_path / "a.ckpt"
    checkpoint.write_bytes(b"one")
    table = open_table(tmp_path / "t", config_of(upstreams=[f"aalbert={checkpoint}"], seeds=2))
    (cell,) = Worker(table, METRICS).cells
    run, later = (cell.runs(None, seed)[0] for seed in cell.seeds)
    execute(run, attempt=lambda arguments: "was tried")
    checkpoint.write_bytes(b"another")  # the pretraining went on meanwhile
    execute(later, attempt=lambda arguments: "was tried")
    assert run.outcome().reason == "was tried"
    assert "another checkpoint than when the table was begun" in later.outcome().reason
