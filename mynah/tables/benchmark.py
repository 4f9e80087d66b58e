"""`benchmark`: a table begun or gone on with, worked on, and written."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mynah
from mynah.plugins import get_plugin
from mynah.tables.cells import CellState
from mynah.tables.chart import PICTURE, draw_chart
from mynah.tables.compare import compare
from mynah.tables.config import LR, TableConfig, TaskColumn, read_table
from mynah.tables.metrics import Metric
from mynah.tables.plan import FAILED, read_json
from mynah.tables.store import Table, forget_failures, known_table, open_table
from mynah.tables.superb import JSON, write_superb
from mynah.tables.worker import Worker
from mynah.tables.writing import CSV, MARKDOWN, Grid, write_tables
from mynah.utility.configuration.load import load_recipe, to_plain
from mynah.utility.configuration.several import as_several
from mynah.utility.errors import UserError

RESULTS = (MARKDOWN, CSV, JSON, PICTURE)

log = logging.getLogger("mynah")


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What `benchmark` takes. The names in messages are the flags of the command line."""

    name: str
    """-n: the table, a folder below `root`."""
    root: Path = Path("result/benchmark")
    """-p: the folder of the tables."""
    config: Path | None = None
    """-c: a YAML file of the whole table."""
    given: dict[str, Any] = field(default_factory=dict)
    """Fields of `TableConfig`, those that are not given left out."""
    retry: bool = False
    """--retry: try again what failed."""
    device: str = "auto"
    """--device: auto, cpu or cuda."""
    plugin_paths: str | Path | Sequence[str | Path] = ()
    """--plugin-path: folders with plugins outside of Mynah, or one."""

    @property
    def more(self) -> list[str]:
        """Arguments of every experiment."""
        paths = [part for path in as_several(self.plugin_paths) for part in ("--plugin-path", str(path))]
        return [*(["--device", self.device] if self.device != "auto" else []), *paths]


def benchmark(options: BenchmarkOptions) -> Grid:
    """Work on a table until all of its cells are done, and write its results into its folder.

    Raises UserError where the table is impossible: for an experiment that fails its cell says why.
    """
    table, metrics = prepare(options)

    def write(states: list[CellState]) -> Grid:
        grid = Grid(options.name, table.config.upstreams, table.config.tasks, metrics, states, notes_on(table))
        _write(grid, table.folder)
        return grid

    grid = write(Worker(table, metrics, options.more, changed=write).work())
    draw_chart(grid, table.folder)
    log.info("results in %s", table.folder)
    return grid


def prepare(options: BenchmarkOptions) -> tuple[Table, dict[str, Metric]]:
    """The table, begun or extended, and the metric of each of its tasks. Raises UserError."""
    check_name(options.name)
    folder = Path(options.root) / options.name
    given = _asked_for(options, known_table(folder))
    if given is not None:
        check_plugins(given, options.plugin_paths)
    table = open_table(folder, given)
    metrics = check_plugins(table.config, options.plugin_paths)
    if options.retry and (count := forget_failures(table.folder)):
        log.info("%d experiments that failed are tried again", count)
    return table, metrics


def benchmark_as_process(options: BenchmarkOptions) -> dict[str, Any]:
    """`benchmark` for any Python process: experiments are forks, which one with threads or a GPU in use cannot have.

    Returns what results.json holds. Raises UserError.
    """
    table, _ = prepare(options)
    script = mynah.ROOT / "run_benchmark.py"
    program = [str(script)] if script.is_file() else ["-m", "mynah", "benchmark"]
    command = [sys.executable, *program, "-n", options.name, "-p", str(options.root), *options.more]
    status = _wait_for(command)
    if status not in (0, 1):
        raise UserError(f"the work on table {options.name} ended early (status {status}); call again to go on")
    return read_json(table.folder / JSON) or {}


def _wait_for(command: list[str]) -> int:
    """Its exit status. An interruption of this process is passed on to all of its, and waited for."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
            raise


def compare_experiments(
    folders: Sequence[Path], folder: Path | None = None, plugin_paths: Sequence[str | Path] = ()
) -> Grid:
    """The table of experiments that exist, written into a folder if one is given. Raises UserError."""
    if folder is not None and folder.is_dir() and any(each.name not in RESULTS for each in folder.iterdir()):
        raise UserError(f"{folder} holds something else than a comparison; -n takes another name")

    from mynah.downstream.build import import_expert

    def metric_of(task: str) -> Metric:
        return _metric(import_expert(get_plugin("downstream", task, plugin_paths)))

    grid = compare(folders, metric_of, folder.name if folder else "comparison")
    if folder is not None:
        _write(grid, folder)
        draw_chart(grid, folder)
        log.info("results in %s", folder)
    return grid


def _write(grid: Grid, folder: Path) -> None:
    write_tables(grid, folder)
    write_superb(grid, folder)


def _metric(expert: Any) -> Metric:
    return Metric(expert.monitor, expert.mode)


def _asked_for(options: BenchmarkOptions, known: TableConfig | None) -> TableConfig | None:
    """The table of the options; what they leave out is that of the known one. None where nothing is given."""
    if options.config is None and not options.given:
        return None
    rest = {} if known is None or options.config is not None else to_plain(known)
    return read_table(options.config, {**rest, **options.given})


def check_plugins(config: TableConfig, plugin_paths: Sequence[str | Path]) -> dict[str, Metric]:
    """The metric of each task's label. Raises UserError for what no experiment could be made of: a name that is no
    plugin's, an option that is no key of the task."""
    for row in config.upstreams:
        get_plugin("upstream", row.upstream, plugin_paths)
    return {column.label: _check_task(column, config, plugin_paths) for column in config.tasks}


def _check_task(column: TaskColumn, config: TableConfig, plugin_paths: Sequence[str | Path]) -> Metric:
    from mynah.downstream.build import import_expert

    plugin = get_plugin("downstream", column.task, plugin_paths)
    expert = import_expert(plugin)
    file = Path(column.config) if column.config else plugin.folder / "config.yaml"
    for varied in column.varied:
        options = [*column.options, *([varied] if varied else []), *(f"{LR}={lr!r}" for lr in config.lrs[:1])]
        load_recipe(expert.Config, files=[file], overrides=options, has_data=expert.has_data)
    return _metric(expert)


def notes_on(table: Table) -> list[str]:
    """How the numbers of a table came about."""
    config = table.config
    notes = ["Test of the checkpoint that is best on dev; upstreams are frozen."]
    if config.seeds > 1:
        notes.append(f"Mean ± sample standard deviation over {config.seeds} seeds, 1 to {config.seeds}.")
    else:
        notes.append("One seed: differences may be chance.")
    if len(config.lrs) > 1:
        rates = ", ".join(f"{lr:g}" for lr in config.lrs)
        which = "all seeds" if config.sweep == "all" else "seed 1"
        notes.append(f"The learning rate is chosen on dev among {rates}, with {which}.")
    elif config.lrs:
        notes.append(f"The learning rate is {config.lrs[0]:g}.")
    notes += [f"{column.label}: the mean over {column.vary}." for column in config.tasks if column.vary]
    return notes


def is_failed(grid: Grid) -> bool:
    """Whether a cell of the table has no value."""
    return any(state.status == FAILED for state in grid.states)


def check_name(name: str) -> None:
    """Raise UserError for a name of a table that is no name of a folder."""
    if not name or Path(name).name != name or name in (".", ".."):
        raise UserError(f"-n {name}: expected a name, not a path; -p gives the folder of the tables")
