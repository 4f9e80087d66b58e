"""The `trainer` section against the signature of Lightning's Trainer."""

import inspect

import pytest
from lightning.pytorch import Trainer

from mynah.utility.configuration.problems import validate
from mynah.utility.training.config import SharedConfig
from mynah.utility.training.trainer_arguments import KNOWN, REFUSED, count_processes

STEPS = "positive number of optimizer steps, at most 1000000000"


def test_known_and_refused_arguments_are_those_of_lightnings_trainer():
    theirs = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert theirs == KNOWN | REFUSED.keys()
    assert not KNOWN & REFUSED.keys()


def test_good_sections_have_no_problems():
    section = {"max_steps": 10, "precision": "bf16-mixed", "devices": 2, "strategy": "ddp", "val_check_interval": 5}
    assert not validate(SharedConfig, {"trainer": section})[1]


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"max_stepz": 1, "max_steps": 1}, "max_stepz: unknown key; did you mean trainer.max_steps?"),
        ({"zzz": 1, "max_steps": 1}, "zzz: unknown key; the keys are those of Lightning's Trainer"),
        ({"max_epochs": 3, "max_steps": 1}, f"max_epochs: cannot be set; {REFUSED['max_epochs']}"),
        (
            {"limit_train_batches": 2, "max_steps": 1},
            f"limit_train_batches: cannot be set; {REFUSED['limit_train_batches']}",
        ),
        ({"max_steps": 0}, f"max_steps: must be a {STEPS}, got 0"),
        (
            {"max_steps": True},
            f"max_steps: must be a {STEPS}, got True",
        ),
        (
            {"max_steps": "many"},
            f"max_steps: must be a {STEPS}, got 'many'",
        ),
        (
            {"max_steps": 1, "val_check_interval": 0.5},
            "val_check_interval: must be a positive number of batches, at most 1000000000, got 0.5",
        ),
        (
            {"max_steps": 1, "accumulate_grad_batches": None},
            "accumulate_grad_batches: must be a positive number of batches, at most 1000000000, got None",
        ),
        ({"devices": 1}, "max_steps: missing; give the number of optimizer steps"),
    ],
)
def test_a_problem_is_named(section, problem):
    key, _, text = problem.partition(": ")
    assert validate(SharedConfig, {"trainer": section})[1] == [(f"trainer.{key}", text)]


def test_all_problems_are_named_at_once():
    section = {"callbacks": [], "max_stepz": 1, "log_every_n_steps": -1}
    problems = validate(SharedConfig, {"trainer": section})[1]
    assert [key for key, _ in problems] == ["trainer.callbacks", "trainer.max_stepz", "trainer.log_every_n_steps"]


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 1),
        ({"devices": 2, "num_nodes": 3}, 6),
        ({"devices": [0]}, 1),
        ({"devices": [1, 3]}, 2),
        ({"devices": "1"}, 1),
        ({"devices": "0,"}, 1),
        ({"devices": "0, 2"}, 2),
        ({"devices": "auto"}, None),
        ({"devices": -1}, None),
    ],
)
def test_processes_are_counted_as_lightning_counts_devices(arguments, count):
    assert count_processes(arguments) == count
