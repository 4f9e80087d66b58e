"""The warning of a run that takes too long: when it comes, and how long it says, by a clock that is set here."""

import logging
from types import SimpleNamespace

import pytest

from mynah.utility.training import pace
from mynah.utility.training.pace import Pace, in_words


@pytest.fixture
def run(monkeypatch, caplog):
    """run(seconds of each step, steps of the run) -> [(step, message)] of the first 40 steps, in 2 batches each."""

    def begin(seconds_a_step, max_steps, shorter="-c small"):
        clock = iter(0.5 * seconds_a_step * half for half in range(1, 1000))
        monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
        callback, messages = Pace(shorter), []
        trainer = SimpleNamespace(global_step=0, max_steps=max_steps, is_global_zero=True)
        callback.on_train_start(trainer, None)
        with caplog.at_level(logging.INFO, logger="mynah"):
            for batch in range(1, 81):
                trainer.global_step = batch // 2
                caplog.clear()
                callback.on_train_batch_end(trainer, None)
                messages += [(trainer.global_step, record.getMessage()) for record in caplog.records]
        return messages

    return begin


def test_a_run_of_months_is_told_once_with_what_is_shorter(run):
    ((step, message),) = run(22.0, 500_000)
    assert step == 4  # a minute after the first
    assert message == "at 22 s a step the 499996 steps that are left take about 4 months; -c small is made for less"


def test_fast_steps_are_measured_over_twenty(run):
    ((step, message),) = run(1.0, 5_000_000, shorter="")
    assert step == 21
    assert message == "at 1 s a step the 4999979 steps that are left take about 8 weeks"


@pytest.mark.parametrize(("seconds", "steps"), [(0.5, 4000), (1.0, 300_000)])
def test_a_run_of_hours_or_a_few_days_is_not(run, seconds, steps):
    assert run(seconds, steps) == []


@pytest.mark.parametrize(
    ("days", "words"), [(5, "5 days"), (15, "2 weeks"), (59, "8 weeks"), (61, "2 months"), (800, "2 years")]
)
def test_durations_are_said_in_the_largest_unit_of_which_there_are_two(days, words):
    assert in_words(days) == words
