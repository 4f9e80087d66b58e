"""The experiments of a table: for each cell those at every learning rate, and repetitions at the chosen one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mynah.tables.config import LR, TableConfig, TaskColumn, UpstreamRow
from mynah.tables.specs import folder_name
from mynah.utility.experiments.folder import write_json

FINISHED, FAILED, OPEN = "finished", "failed", "open"
RUNS, CLAIMS = "runs", "claims"
FAILURE_FILE = "failure.json"
"""In an experiment's folder: why it failed."""
QUIET = "trainer.enable_progress_bar=false"


@dataclass(frozen=True)
class Outcome:
    """What is known of an experiment."""

    status: str
    """FINISHED, FAILED, or OPEN for one that has not begun, is running, or was interrupted."""
    metrics: dict[str, Any] | None = None
    """What metrics.json holds, of a finished one."""
    reason: str = ""
    """Of a failed one."""

    def value(self, split: str, metric: str) -> float | None:
        """A metric of a split; None where there is none."""
        found = ((self.metrics or {}).get(split) or {}).get(metric)
        return float(found) if isinstance(found, int | float) else None


@dataclass(frozen=True)
class Run:
    """One experiment of run_downstream.py."""

    row: UpstreamRow
    column: TaskColumn
    lr: float | None
    """None for the task's own."""
    seed: int
    varied: str
    """The option that varies, "datarc.fold=1"; "" where none does."""
    folder: Path
    """The experiment's."""
    claim: Path
    """The folder whose lock is held by the process that takes the experiment, from its start to its outcome."""

    @property
    def title(self) -> str:
        rate = f"lr {self.lr:g}, " if self.lr is not None else ""
        return f"{self.column.label} / {self.row.label}, {rate}seed {self.seed}{self.varied and f', {self.varied}'}"

    @property
    def overrides(self) -> list[str]:
        """-o: the task's options, and what sets this experiment apart."""
        own = [self.varied] if self.varied else []
        rate = [f"{LR}={self.lr!r}"] if self.lr is not None else []
        return [QUIET, *self.column.options, *own, *rate, f"seed={self.seed}"]

    def arguments(self) -> list[str]:
        """Of run_downstream.py; repeated they continue the experiment."""
        given = {
            "-n": self.folder.name,
            "-p": str(self.folder.parent),
            "-u": self.row.upstream,
            "-d": self.column.task,
            "-k": self.row.checkpoint,
            "-g": self.row.config,
            "-c": self.column.config,
        }
        return [
            "-a",
            *(part for pair in given.items() if pair[1] is not None for part in pair),
            "-o",
            *self.overrides,
        ]

    def outcome(self) -> Outcome:
        return read_outcome(self.folder)

    def fail(self, reason: str) -> None:
        """Note that the experiment failed."""
        write_json({"reason": reason}, self.folder / FAILURE_FILE)


@dataclass(frozen=True)
class Cell:
    """An upstream on a task."""

    row: UpstreamRow
    column: TaskColumn
    config: TableConfig
    table: Path

    @property
    def rates(self) -> list[float | None]:
        return list(self.config.lrs) or [None]

    @property
    def seeds(self) -> list[int]:
        return list(range(1, self.config.seeds + 1))

    @property
    def sweep_seeds(self) -> list[int]:
        """The seeds that are trained at every learning rate."""
        return self.seeds if self.config.sweep == "all" else self.seeds[:1]

    def runs(self, lr: float | None, seed: int) -> list[Run]:
        """Those at a learning rate with a seed: one, or one for each of the values that vary."""
        return [self._run(lr, seed, varied) for varied in self.column.varied]

    def _run(self, lr: float | None, seed: int, varied: str) -> Run:
        parts = [f"lr{lr!r}"] if lr is not None else []
        name = "_".join([*parts, f"seed{seed}", *([folder_name(varied)] if varied else [])])
        place = Path(folder_name(self.column.label), folder_name(self.row.label), name)
        return Run(self.row, self.column, lr, seed, varied, self.table / RUNS / place, self.table / CLAIMS / place)

    @property
    def num_runs(self) -> int:
        repeated = len(self.seeds) - len(self.sweep_seeds)
        return (len(self.sweep_seeds) * len(self.rates) + repeated) * len(self.column.varied)


def cells_of(config: TableConfig, table: Path) -> list[Cell]:
    """The cells, a task after the other."""
    return [Cell(row, column, config, table) for column in config.tasks for row in config.upstreams]


def read_outcome(folder: Path) -> Outcome:
    """What an experiment's folder says of it."""
    metrics = read_json(folder / "metrics.json")
    if metrics is not None and metrics.get("finished") is True:
        return Outcome(FINISHED, metrics)
    failure = read_json(folder / FAILURE_FILE)
    if failure is not None:
        return Outcome(FAILED, reason=str(failure.get("reason", "")))
    return Outcome(OPEN)


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
