"""The work on a table: one process takes experiments, one after the other, until every cell has its value."""

import logging
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mynah.tables.cells import CellState, assess
from mynah.tables.experiment import execute, is_taken
from mynah.tables.metrics import Metric, formatted
from mynah.tables.plan import FAILED, FINISHED, OPEN, Outcome, Run, cells_of
from mynah.tables.store import Table

POLL_SECONDS = 2.0
"""Between two looks at the experiments that other processes are at."""

log = logging.getLogger("mynah")


class Worker:
    """One of the processes that work on a table.

    metrics: of each task's label. execute and is_taken: as in `experiment.py`. changed: called with the states of all
    cells whenever an experiment has ended.
    """

    def __init__(
        self,
        table: Table,
        metrics: dict[str, Metric],
        more: Sequence[str] = (),
        execute: Callable[[Run, Sequence[str]], bool] = execute,
        is_taken: Callable[[Run], bool] = is_taken,
        changed: Callable[[list[CellState]], Any] = lambda states: None,
    ):
        self.table, self.metrics, self.more = table, metrics, more
        self.execute, self.is_taken, self.changed = execute, is_taken, changed
        self.cells = cells_of(table.config, table.folder)
        self.known: dict[Path, tuple[Run, Outcome]] = {}
        """Of each experiment's folder the outcome that does not change any more."""

    def states(self) -> list[CellState]:
        return [assess(cell, self.metrics[cell.column.label], self._outcome) for cell in self.cells]

    def work(self) -> list[CellState]:
        """Run what is open, and wait for what others are at; returns the cells when all are done."""
        waiting = False
        states = self.states()
        log.info("%s", self.progress(states))
        with terminations_interrupt():
            while pending := [run for state in states for run in state.pending]:
                run = next((run for run in pending if not self.is_taken(run) and self._take(run)), None)
                if run is None:
                    if not waiting:
                        log.info("waiting for %d experiments that other processes are at", len(pending))
                    waiting = True
                    time.sleep(POLL_SECONDS)
                states = self.states()
                if run is not None:
                    waiting = False
                    log.info("%s; %s", self._result(run), self.progress(states))
                    self.changed(states)
        return states

    def progress(self, states: list[CellState]) -> str:
        """Cells done, experiments running, failed and left, and the time that these may take."""
        done = sum(state.status != OPEN for state in states)
        failed = sum(state.status == FAILED for state in states)
        pending = [run for state in states for run in state.pending]
        running = sum(map(self.is_taken, pending))
        parts = [f"{done} of {len(states)} cells done"]
        parts += [f"{failed} of them failed"] if failed else []
        left = sum(state.num_open for state in states)
        if left:
            parts.append(f"{left} experiments left" + (f", {running} of them running elsewhere" if running else ""))
            seconds = self._seconds_left(states, running + 1)
            parts += [f"about {_duration(seconds)} to go"] if seconds is not None else []
        return ", ".join(parts)

    def _take(self, run: Run) -> bool:
        log.info("begin %s", run.title)
        taken = self.execute(run, self.more)
        if not taken:
            log.info("another process has it")
        return taken

    def _result(self, run: Run) -> str:
        outcome, metric = self._outcome(run), self.metrics[run.column.label]
        if outcome.status == FAILED:
            return f"FAILED {run.title}: {first_line(outcome.reason)}"
        value = outcome.value("dev", metric.key)
        shown = "none" if value is None else formatted(metric.key, value)
        return f"done {run.title}: dev {metric.title} {shown} ({_duration(_seconds(outcome) or 0)})"

    def _outcome(self, run: Run) -> Outcome:
        if run.folder in self.known:
            return self.known[run.folder][1]
        outcome = run.outcome()
        if outcome.status != OPEN:
            self.known[run.folder] = run, outcome
        return outcome

    def _seconds_left(self, states: list[CellState], workers: int) -> float | None:
        """From the times of finished experiments of the same task, or of all."""
        times: dict[str, list[float]] = {}
        for run, outcome in self.known.values():
            if outcome.status == FINISHED and (seconds := _seconds(outcome)) is not None:
                times.setdefault(run.column.label, []).append(seconds)
        if not times:
            return None
        overall = statistics.fmean(seconds for of_task in times.values() for seconds in of_task)
        means = {label: statistics.fmean(seconds) for label, seconds in times.items()}
        total = sum(state.num_open * means.get(state.cell.column.label, overall) for state in states)
        return total / workers


@contextmanager
def terminations_interrupt() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP do what Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    with suppress(ValueError):  # not in the main thread, which alone receives signals
        before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0] + (" ..." if len(lines) > 1 else "") if lines else "no reason was noted"


def _seconds(outcome: Outcome) -> float | None:
    seconds = (outcome.metrics or {}).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
