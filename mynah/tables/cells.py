"""The value of a cell: the learning rate that dev chose, and mean and deviation of test over the seeds."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mynah.tables.metrics import Metric
from mynah.tables.plan import FAILED, FINISHED, OPEN, Cell, Outcome, Run


@dataclass(frozen=True)
class Trial:
    """An experiment and its outcome."""

    run: Run
    outcome: Outcome


@dataclass(frozen=True)
class CellState:
    """What is known of a cell."""

    cell: Cell
    metric: Metric
    pending: list[Run]
    """Experiments that can be run now."""
    trials: list[Trial]
    """Those that are asked for so far, finished or not."""
    status: str = OPEN
    """FINISHED where at least one seed gave a value, FAILED where none can, or OPEN."""
    lr: float | None = None
    """The chosen learning rate, once it is."""
    dev: float | None = None
    """What it was chosen by: the mean of dev over the sweep's experiments at that rate."""
    values: list[float] = field(default_factory=list)
    """Test of each seed, the mean over what varies."""
    reasons: list[str] = field(default_factory=list)
    """Why experiments failed, each once."""
    edge: bool = False
    """Whether the chosen learning rate is the largest or smallest of three or more: a better one may lie beyond."""

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation (n - 1) over seeds; None for less than two, NaN where one is not finite."""
        if len(self.values) < 2:
            return None
        return statistics.stdev(self.values) if all(map(math.isfinite, self.values)) else math.nan

    @property
    def num_open(self) -> int:
        """Experiments that are not finished, those included that no learning rate was chosen for yet."""
        asked = sum(trial.outcome.status != OPEN for trial in self.trials)
        return 0 if self.status != OPEN else max(self.cell.num_runs - asked, len(self.pending))


def assess(cell: Cell, metric: Metric, outcome_of: Callable[[Run], Outcome]) -> CellState:
    """The state of a cell, from the outcomes of its experiments.

    Of the learning rates whose sweep has finished the one with the best mean of dev is chosen, the earlier one of
    equals; a rate at which an experiment failed is out. Then come the other seeds, at that rate.
    """

    def trials_of(lr: float | None, seeds: Sequence[int]) -> list[list[Trial]]:
        return [[Trial(run, outcome_of(run)) for run in cell.runs(lr, seed)] for seed in seeds]

    sweep = {lr: trials_of(lr, cell.sweep_seeds) for lr in cell.rates}
    trials = [trial for seeds in sweep.values() for of_seed in seeds for trial in of_seed]
    if pending := _open(trials):
        return CellState(cell, metric, pending, trials, reasons=_reasons(trials))
    scores = {lr: score for lr, seeds in sweep.items() if (score := _score(seeds, metric)) is not None}
    if len(sweep) == 1 and not scores:  # without a choice no dev is needed
        scores = dict.fromkeys(sweep, math.nan)
    if not scores:
        reasons = _reasons(trials) or [f"no experiment has {metric.key} on dev"]
        return CellState(cell, metric, [], trials, FAILED, reasons=reasons)
    chosen = best_rate(scores, metric)
    repeated = trials_of(chosen, [seed for seed in cell.seeds if seed not in cell.sweep_seeds])
    trials += [trial for of_seed in repeated for trial in of_seed]
    if pending := _open(trials):
        return CellState(cell, metric, pending, trials, lr=chosen, dev=scores[chosen], reasons=_reasons(trials))
    values = [value for of_seed in [*sweep[chosen], *repeated] if (value := _test(of_seed, metric)) is not None]
    reasons = _reasons(trials)
    if not values and not reasons:
        reasons = [f"no experiment has {metric.key} on test"]
    status, edge = FINISHED if values else FAILED, is_edge(chosen, cell.rates)
    return CellState(cell, metric, [], trials, status, chosen, scores[chosen], values, reasons, edge)


def best_rate(scores: dict[float | None, float], metric: Metric) -> float | None:
    """The learning rate with the best score, the earlier one of equals."""
    best = next(iter(scores))
    for lr, score in scores.items():
        if metric.better(score, scores[best]):
            best = lr
    return best


def is_edge(chosen: float | None, rates: Sequence[float | None]) -> bool:
    """Whether a rate is the largest or smallest of three or more."""
    numbers = [rate for rate in rates if rate is not None]
    return len(numbers) > 2 and chosen in (min(numbers), max(numbers))


def _open(trials: Sequence[Trial]) -> list[Run]:
    return [trial.run for trial in trials if trial.outcome.status == OPEN]


def _reasons(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(trial.outcome.reason for trial in trials if trial.outcome.status == FAILED))


def _score(seeds: Sequence[Sequence[Trial]], metric: Metric) -> float | None:
    """The mean of dev over the experiments at a learning rate; None where one failed or has no dev."""
    found = [trial.outcome.value("dev", metric.key) for of_seed in seeds for trial in of_seed]
    return None if None in found else statistics.fmean(found)


def _test(of_seed: Sequence[Trial], metric: Metric) -> float | None:
    """The mean of test over what varies; None where one of the experiments failed, as a mean of fewer is another."""
    found = [trial.outcome.value("test", metric.key) for trial in of_seed]
    return None if None in found else statistics.fmean(found)
