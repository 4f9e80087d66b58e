"""What makes a run the same, as its checkpoints tell it."""

from pathlib import Path

import pytest
from pydantic import Field

from mynah.utility.configuration.sections import Section
from mynah.utility.errors import UserError
from mynah.utility.training.identity import compare_identity, run_identity


class Loader(Section):
    batch_size: int = 8
    max_batch_seconds: float | None = None


class Config(Section):
    seed: int = 1
    trainer: dict[str, int] = Field(default_factory=dict)
    dataloader: Loader = Field(default_factory=Loader)


def identity(processes, **loader):
    return run_identity(Config(dataloader=Loader(**loader)), {}, processes)


def test_processes_may_change_where_their_batches_together_stay_the_same(caplog):
    assert not compare_identity(identity(2, batch_size=4), identity(1, batch_size=8), Path("last.ckpt"), False)
    assert "2 processes instead of 1: each step sees the items that it would have seen" in caplog.text
    with pytest.raises(UserError, match="batch_size x processes is 16, was 8"):
        compare_identity(identity(2), identity(1), Path("last.ckpt"), False)


@pytest.mark.parametrize("seconds", [60.0, 30.0])
def test_processes_may_not_change_where_seconds_bound_the_batch_of_each(seconds):
    with pytest.raises(UserError, match=r"processes with dataloader\.max_batch_seconds is 2, was 1"):
        compare_identity(
            identity(2, batch_size=4, max_batch_seconds=seconds),
            identity(1, batch_size=8, max_batch_seconds=60.0),
            Path("last.ckpt"),
            False,
        )
