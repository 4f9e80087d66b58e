"""The results of a table as Markdown, CSV and JSON."""

import csv
import io
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mynah.tables.cells import CellState, Trial
from mynah.tables.config import TaskColumn, UpstreamRow
from mynah.tables.metrics import Metric, formatted, name_of
from mynah.tables.plan import FAILED, FINISHED, OPEN, read_json
from mynah.utility.experiments.provenance import RUN_FILE
from mynah.utility.storage import write_atomically

MARKDOWN, CSV = "results.md", "results.csv"


@dataclass(frozen=True)
class Grid:
    """A table with what is known of its cells."""

    name: str
    rows: list[UpstreamRow]
    columns: list[TaskColumn]
    metrics: dict[str, Metric]
    """Of each column's label."""
    states: list[CellState]
    notes: list[str] = field(default_factory=list)
    """How the numbers came about, a sentence each."""

    def state(self, row: UpstreamRow, column: TaskColumn) -> CellState | None:
        """The cell; None where there is none."""
        labels = (row.label, column.label)
        return next((one for one in self.states if (one.cell.row.label, one.cell.column.label) == labels), None)

    def best(self, column: TaskColumn) -> float | None:
        """The best mean of a column."""
        best = None
        for row in self.rows:
            state = self.state(row, column)
            mean = state.mean if state else None
            if mean is not None and (best is None or self.metrics[column.label].better(mean, best)):
                best = mean
        return best


def write_tables(grid: Grid, folder: Path) -> list[Path]:
    """results.md and results.csv. Raises OSError."""
    write_atomically(folder / MARKDOWN, markdown(grid))
    write_atomically(folder / CSV, csv_text(grid))
    return [folder / MARKDOWN, folder / CSV]


def markdown(grid: Grid) -> str:
    """The table, how its numbers came about, and what stands behind every cell."""
    failures: list[str] = []
    lines = [f"# {grid.name}", "", *main_table(grid, failures), ""]
    lines += [f"[{number}] {_cell(reason)}  " for number, reason in enumerate(failures, start=1)]
    lines += [*([""] if failures else []), *(f"- {_cell(note)}" for note in grid.notes)]
    lines += ["", "## Cells", "", *_details(grid), "", "## Tasks", "", *_columns(grid)]
    lines += ["", "## Upstreams", "", *_rows(grid)]
    return "\n".join(lines) + "\n"


def main_table(grid: Grid, failures: list[str]) -> list[str]:
    """The lines of the table itself; reasons of failures are appended to `failures`, and cells name their number."""
    head = ["", *(f"{_cell(column.label)}, {grid.metrics[column.label].title}" for column in grid.columns)]
    body = []
    for row in grid.rows:
        cells = [_shown(grid, row, column, failures) for column in grid.columns]
        body.append([_cell(row.label), *cells])
    return aligned([head, *body])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table of a head and rows, which reads as text too."""
    widths = [max(3, *(len(row[index]) for row in rows)) for index in range(len(rows[0]))]
    texts = [
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [texts[0], "| " + " | ".join("-" * width for width in widths) + " |", *texts[1:]]


def _shown(grid: Grid, row: UpstreamRow, column: TaskColumn, failures: list[str]) -> str:
    state = grid.state(row, column)
    if state is None:
        return "–"
    marks = ""
    for reason in state.reasons:
        if reason not in failures:
            failures.append(reason)
        marks += f" [{failures.index(reason) + 1}]"
    if state.status != FINISHED or state.mean is None:
        return {OPEN: "open", FAILED: "failed"}.get(state.status, "failed") + marks
    text = formatted(state.metric.key, state.mean, state.deviation)
    text = f"**{text}**" if len(grid.rows) > 1 and state.mean == grid.best(column) else text
    wanted = len(state.cell.seeds)
    return text + (f" ({len(state.values)} of {wanted} seeds)" if len(state.values) < wanted else "") + marks


def _details(grid: Grid) -> list[str]:
    head = ["task", "upstream", "learning rate", "dev", "test", "seeds", "other metrics of test"]
    rows = []
    for state in grid.states:
        key = state.metric.key
        mean, dev = state.mean, state.dev
        others = [f"{name_of(name)} {formatted(name, value)}" for name, value in other_metrics(state) if name != key]
        rows.append(
            [
                _cell(state.cell.column.label),
                _cell(state.cell.row.label),
                ("task's own" if state.lr is None else f"{state.lr:g}{' (edge)' if state.edge else ''}")
                if mean is not None
                else "",
                formatted(key, dev) if dev is not None and dev == dev else "",
                formatted(key, mean, state.deviation) if mean is not None else state.status,
                str(len(state.values)),
                ", ".join(others),
            ]
        )
    return aligned([head, *rows])


def other_metrics(state: CellState) -> list[tuple[str, float]]:
    """The means of all metrics of test, over the experiments that the cell's is of; of counts an int, where it is."""
    found: dict[str, list[float]] = {}
    for trial in _counted_trials(state):
        for name, value in ((trial.outcome.metrics or {}).get("test") or {}).items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append(value)
    return [(name, _mean(values)) for name, values in found.items()]


def _mean(values: Sequence[float]) -> float:
    are_counts = all(isinstance(value, int) for value in values)
    return statistics.mean(values) if are_counts else statistics.fmean(values)


def chosen_trials(state: CellState) -> list[Trial]:
    """The finished experiments at the chosen learning rate."""
    if state.mean is None:
        return []
    return [trial for trial in state.trials if trial.run.lr == state.lr and trial.outcome.status == FINISHED]


def _counted_trials(state: CellState) -> list[Trial]:
    """Of the chosen learning rate those of the seeds that have a value for all that varies."""
    chosen = chosen_trials(state)
    counts = Counter(trial.run.seed for trial in chosen if trial.outcome.value("test", state.metric.key) is not None)
    return [trial for trial in chosen if counts[trial.run.seed] == len(state.cell.column.varied)]


def _columns(grid: Grid) -> list[str]:
    head = ["label", "task", "data", "options"]
    rows = []
    for column in grid.columns:
        options = [*([f"-c {column.config}"] if column.config else []), *column.options]
        data = _data_of(grid, column)
        rows.append([_cell(column.label), column.task, _cell(data), _cell(" ".join(options))])
    return aligned([head, *rows])


def _data_of(grid: Grid, column: TaskColumn) -> str:
    """Where the data of a task was read from, as its experiments wrote it down."""
    for state in grid.states:
        if state.cell.column.label == column.label:
            for trial in chosen_trials(state):
                record = read_json(trial.run.folder / RUN_FILE) or {}
                return str((record.get("data") or {}).get("file_path") or "")
    return ""


def _rows(grid: Grid) -> list[str]:
    head = ["label", "upstream", "checkpoint", "SHA-256", "configuration"]
    rows = [
        [
            _cell(row.label),
            row.upstream,
            _cell(row.checkpoint or ""),
            (row.sha256 or "")[:16],
            _cell(row.config or ""),
        ]
        for row in grid.rows
    ]
    return aligned([head, *rows])


def _cell(text: str) -> str:
    """A text as a cell or a line of Markdown."""
    return " ".join(text.split()).replace("|", "\\|")


RUN_COLUMNS = ("learning_rate", "seed", "varied", "status", "dev", "test", "deviation", "seeds", "chosen")
FACTS = ("row", "task", "task_plugin", "upstream", "upstream_plugin", "checkpoint", "sha256", "metric", "mode")


def csv_text(grid: Grid) -> str:
    """Long form: a row for each experiment ("run") and each cell ("cell"); values as in metrics.json."""
    rows = []
    for state in grid.states:
        cell, chosen = state.cell, {trial.run.folder for trial in chosen_trials(state)}
        facts = dict(
            zip(
                FACTS[1:],
                (
                    *(cell.column.label, cell.column.task, cell.row.label, cell.row.upstream),
                    *(cell.row.checkpoint or "", cell.row.sha256 or "", state.metric.key, state.metric.mode),
                ),
                strict=True,
            )
        )
        rows += [
            {"row": "run", **facts, **_run_row(trial, state, trial.run.folder in chosen)} for trial in state.trials
        ]
        rows.append({"row": "cell", **facts, **_cell_row(state)})
    more = list(dict.fromkeys(key for row in rows for key in row if key.startswith("test.")))
    text = io.StringIO()
    table = csv.DictWriter(
        text, [*FACTS, *RUN_COLUMNS, "seconds", "reason", "folder", *more], restval="", lineterminator="\n"
    )
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _run_row(trial: Trial, state: CellState, chosen: bool) -> dict[str, Any]:
    run, outcome, key = trial.run, trial.outcome, state.metric.key
    tests = (outcome.metrics or {}).get("test") or {}
    return {
        "learning_rate": _or_empty(run.lr),
        "seed": run.seed,
        "varied": run.varied,
        "status": outcome.status,
        "dev": _or_empty(outcome.value("dev", key)),
        "test": _or_empty(outcome.value("test", key)),
        "chosen": str(chosen).lower(),
        "seconds": _or_empty((outcome.metrics or {}).get("seconds")),
        "reason": outcome.reason,
        "folder": run.folder,
        **{f"test.{name}": value for name, value in tests.items()},
    }


def _cell_row(state: CellState) -> dict[str, Any]:
    return {
        "learning_rate": _or_empty(state.lr),
        "status": state.status,
        "dev": _or_empty(state.dev),
        "test": _or_empty(state.mean),
        "deviation": _or_empty(state.deviation),
        "seeds": len(state.values),
        "reason": "; ".join(state.reasons),
        **{f"test.{name}": value for name, value in other_metrics(state)},
    }


def _or_empty(value: float | None) -> float | str:
    return "" if value is None or value != value else value
