"""Tables whose experiments are fabricated: metrics.json as run_downstream.py would write it, or a failure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mynah.tables.config import TableConfig, read_table
from mynah.tables.plan import Run
from mynah.tables.store import Table


@pytest.fixture
def table_of(tmp_path) -> Callable[..., Table]:
    """table_of(upstreams=..., ...) -> a table in a folder of its own."""

    def make(folder: Path | None = None, **given: Any) -> Table:
        given = {"upstreams": ["fbank"], "tasks": ["emotion"], **given}
        return Table(folder or tmp_path / "table", read_table(None, given))

    return make


@pytest.fixture
def config_of() -> Callable[..., TableConfig]:
    """config_of(upstreams=..., ...) -> a checked table."""
    return lambda **given: read_table(None, {"upstreams": ["fbank"], "tasks": ["emotion"], **given})


@pytest.fixture
def fabricate() -> Callable[..., None]:
    """fabricate(run, dev, test) writes a finished experiment's metrics, fabricate(run, reason="...") a failure."""

    def write(run: Run, dev: float = 0.5, test: float = 0.5, key: str = "accuracy", reason: str = "") -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        if reason:
            run.fail(reason)
            return
        values = {"dev": {key: dev, "loss": 1.0}, "test": {key: test, "loss": 2.0}}
        (run.folder / "metrics.json").write_text(json.dumps({**values, "seconds": 3.0, "finished": True}))

    return write
