"""A table of experiments that exist: `--compare DIR DIR ...`."""

import hashlib
import json
import logging
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mynah.tables.cells import CellState, Trial, best_rate, is_edge
from mynah.tables.config import LR, TableConfig, TaskColumn, UpstreamRow
from mynah.tables.metrics import Metric
from mynah.tables.plan import FINISHED, Cell, Outcome, Run, read_json, read_outcome
from mynah.tables.specs import MAX_LABEL, choose_labels, folder_name, upstream_labels, usable_label
from mynah.tables.store import HARMLESS
from mynah.tables.writing import Grid
from mynah.utility.configuration.yaml_text import read_yaml_file
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import BEST, METADATA, read_checkpoint
from mynah.utility.experiments.provenance import RUN_FILE
from mynah.utility.training.identity import flatten

APART = ("seed", LR)
"""Keys that tell experiments of one cell apart."""
PLACES = ("datarc.file_path", "datarc.test_path", "datarc.split_list")
"""Keys that say where data lies; whether it is the same is told by its fingerprint."""

log = logging.getLogger("mynah")


@dataclass(frozen=True)
class Found:
    """A finished experiment, and what makes its row and its column."""

    folder: Path
    outcome: Outcome
    record: dict[str, Any]
    """What run.json holds."""
    options: dict[str, Any]
    """The task's configuration, flat."""
    model: str
    """A digest of the upstream's configuration."""

    @property
    def row_key(self) -> tuple[str, ...]:
        origin = self.record.get("upstream_checkpoint") or {}
        return str(self.record.get("upstream")), str(origin.get("sha256") or origin.get("given") or ""), self.model

    @property
    def facts(self) -> dict[str, Any]:
        """What experiments of one column share."""
        same = {
            key: value
            for key, value in self.options.items()
            if key not in (*APART, *PLACES) and not key.startswith(HARMLESS)
        }
        prints = (self.record.get("data") or {}).get("fingerprints") or {}
        own = {"fine_tune": self.record.get("fine_tune", False), "init_from": self.record.get("init_from")}
        return {**same, **own, "data": _digest(prints), **{f"data of {key}": each for key, each in prints.items()}}

    @property
    def column_key(self) -> tuple[str, str]:
        return str(self.record.get("downstream")), _digest(self.facts)


def compare(folders: Sequence[Path], metric_of: Callable[[str], Metric], name: str = "comparison") -> Grid:
    """The table of the finished experiments in these folders and below them.

    Experiments of one upstream checkpoint, task, data and options are one cell: of learning rates the one with the
    best mean of dev, seeds repeat. metric_of: the metric of a task. Raises UserError for a folder without any.
    """
    found = [one for folder in folders for one in find_experiments(Path(folder))]
    found = list({one.folder.resolve(): one for one in found}.values())
    rows = _rows(found)
    columns = _columns(found)
    metrics = {column.label: metric_of(column.task) for column in columns.values()}
    groups: dict[tuple, list[Found]] = {}
    for one in found:
        groups.setdefault((one.row_key, one.column_key), []).append(one)
    states = [
        _state(rows[row_key], columns[column_key], metrics[columns[column_key].label], groups[row_key, column_key])
        for column_key in columns
        for row_key in rows
        if (row_key, column_key) in groups
    ]
    notes = [
        "Experiments that existed before. Test of the checkpoint that is best on dev; of several learning rates the "
        "one with the best dev, over the seeds that all of them have.",
        "Mean ± sample standard deviation over seeds, where there are several.",
    ]
    return Grid(name, list(rows.values()), list(columns.values()), metrics, states, notes)


def find_experiments(folder: Path) -> Iterator[Found]:
    """The finished experiments of tasks in a folder and below it. Raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --compare takes experiments of run_downstream.py")
    records = [(path.parent, read_json(path) or {}) for path in sorted(folder.rglob(RUN_FILE))]
    tasks = [(place, record) for place, record in records if record.get("kind") == "downstream"]
    if not tasks:
        what = (
            "holds a pretraining" if records or (folder / "pretrain_config.yaml").is_file() else "holds no experiment"
        )
        raise UserError(
            f"{folder}: {what}; --compare takes experiments of run_downstream.py, or folders of them. Its option -k "
            "trains a task on a pretrained upstream"
        )
    count = 0
    for place, record in tasks:
        outcome = read_outcome(place)
        if outcome.status != FINISHED:
            log.warning("%s: not finished; it is left out", place)
            continue
        count += 1
        yield Found(place, outcome, record, _options_of(place), _model_of(place))
    if not count:
        raise UserError(f"{folder}: none of its {len(tasks)} experiments is finished; continue them with -a or -e")


def _options_of(folder: Path) -> dict[str, Any]:
    try:
        plain, _ = read_yaml_file(folder / "config.yaml")
    except UserError as error:
        raise UserError(f"{folder / 'config.yaml'}: {error}") from error
    return dict(flatten(plain, ""))


def _model_of(folder: Path) -> str:
    checkpoint = folder / "checkpoints" / BEST
    if not checkpoint.is_file():
        return ""
    return _digest(read_checkpoint(checkpoint, "downstream")[METADATA]["config"])


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def _rows(found: Sequence[Found]) -> dict[tuple, UpstreamRow]:
    """A row for each upstream and its weights, in the order found."""
    firsts = {one.row_key: one for one in reversed(found)}
    firsts = {key: firsts[key] for key in dict.fromkeys(one.row_key for one in found)}
    origins = [one.record.get("upstream_checkpoint") or {} for one in firsts.values()]
    names = [str(one.record.get("upstream")) for one in firsts.values()]
    labels = choose_labels(
        [""] * len(names),
        [
            lambda name=name, origin=origin: upstream_labels(name, origin.get("given"), None)
            for name, origin in zip(names, origins, strict=True)
        ],
    )
    return {
        key: UpstreamRow(label=label, upstream=name, checkpoint=origin.get("given"), sha256=origin.get("sha256"))
        for key, label, name, origin in zip(firsts, labels, names, origins, strict=True)
    }


def _columns(found: Sequence[Found]) -> dict[tuple, TaskColumn]:
    """A column for each task, its data and options; where a task has several, labels say how they differ."""
    facts = {one.column_key: one.facts for one in found}
    columns: dict[tuple, TaskColumn] = {}
    labels: list[str] = []
    for key, own in facts.items():
        task = key[0]
        others = [each for other, each in facts.items() if other[0] == task and other != key]
        differing = [name for name in own if any(each.get(name) != own[name] for each in others)]
        differing = [name for name in differing if not name.startswith("data of ")]
        texts = [f"{name}={str(own[name])[:12]}" for name in differing]
        label = usable_label(" ".join([task, *texts]))[:MAX_LABEL]
        if folder_name(label) in map(folder_name, labels):
            label = f"{label[:70]} {len(labels) + 1}"
        labels.append(label)
        columns[key] = TaskColumn(label=label, task=task, options=[f"{name}={own[name]}" for name in differing])
    return columns


def _state(row: UpstreamRow, column: TaskColumn, metric: Metric, group: Sequence[Found]) -> CellState:
    by_rate: dict[float | None, dict[int, Trial]] = {}
    for one in group:
        lr, seed = one.options.get(LR), int(one.options.get("seed", 0))
        run = Run(row, column, lr, seed, "", one.folder, one.folder)
        of_rate = by_rate.setdefault(lr, {})
        if seed in of_rate:
            log.warning(
                "%s repeats %s: the same seed and options; it is left out", one.folder, of_rate[seed].run.folder
            )
            continue
        of_rate[seed] = Trial(run, one.outcome)
    by_rate = dict(sorted(by_rate.items(), key=lambda item: item[0] or 0.0))
    trials = [trial for of_rate in by_rate.values() for trial in of_rate.values()]
    scores = _scores(by_rate, metric)
    chosen = best_rate(scores, metric)
    values = [
        value for trial in by_rate[chosen].values() if (value := trial.outcome.value("test", metric.key)) is not None
    ]
    rates = [lr for lr in by_rate if lr is not None]
    config = TableConfig(upstreams=[row], tasks=[column], lrs=rates, seeds=len(by_rate[chosen]))
    cell = Cell(row, column, config, Path())
    reasons = [] if values else [f"no experiment has {metric.key} on test"]
    status = FINISHED if values else "failed"
    edge = is_edge(chosen, rates)
    return CellState(cell, metric, [], trials, status, chosen, scores[chosen], values, reasons, edge)


def _scores(by_rate: dict[float | None, dict[int, Trial]], metric: Metric) -> dict[float | None, float]:
    """The mean of dev at each learning rate, over the seeds that all have; over its own where there are none."""
    common = set.intersection(*(set(of_rate) for of_rate in by_rate.values()))
    scores = {}
    for lr, of_rate in by_rate.items():
        found = [of_rate[seed].outcome.value("dev", metric.key) for seed in common or of_rate]
        scores[lr] = math.nan if None in found else statistics.fmean(found)
    return scores
