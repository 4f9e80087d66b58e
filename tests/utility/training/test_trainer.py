"""The Trainer's defaults."""

from pathlib import Path
from types import FunctionType

import pytest

from mynah.utility.errors import UserError
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


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "reset"), FileNotFoundError(2, "no socket")])
def test_a_worker_that_dies_while_it_hands_over_a_batch_is_said(error):
    code = compile("def _try_get_data(error):\n    raise error\n", "torch/utils/data/dataloader.py", "exec")
    place: dict = {}
    FunctionType(code, place)()
    said = pytest.raises(UserError, match=r"a process that reads the data ended .*To continue")
    with said, training.interruptions_reported(lambda: "To continue"):
        place["_try_get_data"](error)
    with pytest.raises(type(error)), training.interruptions_reported(lambda: "To continue"):
        raise error.with_traceback(None)
