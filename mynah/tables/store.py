"""A table's folder: made, found again, extended, and never mixed with another table."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mynah.tables.config import TableConfig, TaskColumn, UpstreamRow, complete
from mynah.tables.plan import FAILURE_FILE, RUNS
from mynah.utility.configuration.load import load_config, save_config
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import locate_checkpoint
from mynah.utility.experiments.download import is_url
from mynah.utility.experiments.folder import make_writable
from mynah.utility.experiments.provenance import checkpoint_origin
from mynah.utility.experiments.shipped import is_name, shipped_weights
from mynah.utility.storage import TEMPORARY, folder_locked

TABLE_FILE = "table.yaml"
FILES = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")
"""How the names of files of weights end."""
HARMLESS = (
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "dataloader.num_workers",
    "features.cache_gib",
    "features.disk_gib",
    "checkpoint.",
)
"""Beginnings of options that may be others for the rest of a table: they change no result."""

log = logging.getLogger("mynah")


@dataclass(frozen=True)
class Table:
    """A table that is worked on."""

    folder: Path
    config: TableConfig


def known_table(folder: Path) -> TableConfig | None:
    """The table in a folder, if there is one."""
    file = folder / TABLE_FILE
    return complete(load_config(TableConfig, files=[file])) if file.is_file() else None


def open_table(folder: Path, given: TableConfig | None) -> Table:
    """Begin a table, or go on with the one in the folder, extended by what is given: rows, columns, rates, seeds.

    given: None to go on with what there is. Raises UserError where there is nothing to go on with, and where a row
    or a column of the table is given with other options or another checkpoint than it has.
    """
    file = folder / TABLE_FILE
    if given is None and not file.is_file():
        raise UserError(f"{folder}: there is no table here; --upstreams and --tasks, or -c FILE, begin one")
    if given is not None:
        _check_files(given, known_table(folder))
    if _holds_other_things(folder) and not file.is_file():
        raise UserError(f"{folder} exists and holds no table; -n takes another name, -p another place")
    make_writable(folder, "-p")
    with folder_locked(folder):
        known = known_table(folder)
        config = _with_digests(given or known, known)
        config = config if known is None else _extended(folder.name, known, config)
        save_config(config, file)
    return Table(folder, config)


def _check_files(given: TableConfig, known: TableConfig | None) -> None:
    """Raise UserError where a file of a new row is missing: a row cannot be taken out of a table again.

    A text that could be a model's id in a hub is left to its upstream.
    """
    labels = [row.label for row in known.upstreams] if known else []
    for row in given.upstreams:
        if row.label in labels:
            continue
        if row.config is not None and not Path(row.config).expanduser().is_file():
            raise UserError(f"row {row.label} of the table: {row.config}: no such file; check the path")
        if row.checkpoint is None or is_url(row.checkpoint):
            continue
        place = Path(row.checkpoint).expanduser()
        is_local = place.is_absolute() or row.checkpoint.startswith(".")
        is_path = is_local or len(place.parts) > 2 or place.suffix in FILES
        has_names = is_name(row.checkpoint) and row.upstream in shipped_weights()
        if (is_path or has_names) and not place.exists():
            try:
                locate_checkpoint(row.checkpoint, row.upstream)
            except UserError as error:
                raise UserError(f"row {row.label} of the table: {error}") from error


def _holds_other_things(folder: Path) -> bool:
    """Whether there is anything but files that are being written."""
    return folder.is_dir() and any(not each.name.endswith(TEMPORARY) for each in folder.iterdir())


def forget_failures(folder: Path) -> int:
    """Let what failed be tried again; how many experiments that are."""
    failures = list((folder / RUNS).glob(f"*/*/*/{FAILURE_FILE}"))
    for path in failures:
        path.unlink(missing_ok=True)
    return len(failures)


def _with_digests(config: TableConfig, known: TableConfig | None) -> TableConfig:
    """The SHA-256 of every checkpoint; of one that is gone, what the table knows of it."""
    earlier = {row.label: row.sha256 for row in known.upstreams} if known else {}
    rows = [row.replace(sha256=_digest(row) or earlier.get(row.label)) for row in config.upstreams]
    return config.replace(upstreams=rows)


def _digest(row: UpstreamRow) -> str | None:
    try:
        return (checkpoint_origin(row.checkpoint, row.upstream) or {}).get("sha256")
    except UserError:  # its experiments fail with the reason
        return None


def _extended(name: str, known: TableConfig, given: TableConfig) -> TableConfig:
    """The table that is known with what is new in the given one. Raises UserError where they contradict."""
    rows = _merged(name, "upstream", known.upstreams, given.upstreams, _row_facts)
    columns = _merged(name, "task", known.tasks, given.tasks, _column_facts)
    if given.sweep != known.sweep:
        raise UserError(
            f"table {name} was begun with --sweep {known.sweep}, not {given.sweep}; -n takes another name"
        )
    if bool(given.lrs) != bool(known.lrs):
        has = f"--lrs {' '.join(f'{lr:g}' for lr in known.lrs)}" if known.lrs else "the tasks' own learning rates"
        raise UserError(f"table {name} has {has}; give the same, or another name with -n")
    merged = {
        "upstreams": rows,
        "tasks": columns,
        "lrs": list(dict.fromkeys([*known.lrs, *given.lrs])),
        "seeds": max(known.seeds, given.seeds),
    }
    for what, before in (("upstreams", known.upstreams), ("tasks", known.tasks)):
        _tell(name, what, [each.label for each in before], [each.label for each in getattr(given, what)])
    _tell(name, "learning rates", [f"{lr:g}" for lr in known.lrs], [f"{lr:g}" for lr in given.lrs])
    if given.seeds != known.seeds:
        log.info("table %s: %d seeds (%d so far, %d asked for)", name, merged["seeds"], known.seeds, given.seeds)
    return known.replace(**merged)


def _tell(name: str, what: str, known: Sequence[str], given: Sequence[str]) -> None:
    """A line for what is added to a table, and for what it has beside what was given."""
    if added := [each for each in given if each not in known]:
        log.info("table %s: %s added: %s", name, what, ", ".join(added))
    if others := [each for each in known if each not in given]:
        log.info("table %s has other %s too: %s", name, what, ", ".join(others))


def _merged(name: str, what: str, known: Sequence[Any], given: Sequence[Any], facts: Any) -> list[Any]:
    """By label: those of the table, with harmless options as they are given now, and new ones."""
    found = {each.label: each for each in known}
    for each in given:
        if each.label in found:
            before, now = facts(found[each.label]), facts(each)
            for key in before:
                if before[key] != now[key]:
                    raise UserError(
                        f"table {name}: {what} {each.label!r} has {key} {before[key] or 'none'}, not "
                        f"{now[key] or 'none'}; give it another label, LABEL:{each.label}, or the table another name "
                        "with -n"
                    )
        found[each.label] = each
    return list(found.values())


def _row_facts(row: UpstreamRow) -> dict[str, Any]:
    return {
        "the upstream": row.upstream,
        "the configuration": row.config,
        "a checkpoint of the SHA-256": row.sha256,
        "the checkpoint": None if row.sha256 else row.checkpoint,
    }


def _column_facts(column: TaskColumn) -> dict[str, Any]:
    options = [each for each in column.options if not each.startswith(HARMLESS)]
    return {
        "the task": column.task,
        "the configuration": column.config,
        "the options": " ".join(options),
        "--vary": column.vary,
    }
