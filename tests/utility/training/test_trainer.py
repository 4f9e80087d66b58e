"""The Trainer's defaults."""

from pathlib import Path

import pytest

from mynah.utility.experiments.folder import Experiment
from mynah.utility.training import trainer as training
from mynah.utility.training.config import CheckpointConfig


@pytest.mark.parametrize(("given", "devices"), [({}, 1), ({"devices": 2, "accelerator": "cpu"}, 2)])
def test_one_device_is_used_unless_more_are_asked_for(monkeypatch, given, devices):
    taken = {}
    monkeypatch.setattr(training, "Trainer", lambda **arguments: taken.update(arguments))
    experiment = Experiment(Path("unused"))
    training.build_trainer({"max_steps": 1, **given}, experiment, CheckpointConfig(), monitor="loss", mode="min")
    assert taken["devices"] == devices
