"""The configuration of a table: its rows, its columns, and how their experiments are trained."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from mynah.tables.specs import (
    check_label,
    choose_labels,
    folder_name,
    parse_task,
    parse_upstream,
    parse_values,
    split_target,
    upstream_labels,
)
from mynah.utility.configuration.load import from_plain, load_config, to_plain
from mynah.utility.configuration.sections import Section, nearest, one_of, refuse, rules, shown
from mynah.utility.configuration.several import as_several
from mynah.utility.errors import UserError

SWEEPS = ("first", "all")
LR = "optimizer.lr"
DEFAULT_OPTIONS: tuple[str, ...] = ("features.cache=disk",)
"""Options of every task before those that are given."""


class _Named(Section):
    """What may be typed as one text in place of its fields."""

    label: str = ""
    """Its name in the table; made by itself where it is empty."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return _checked(cls._parse, data) if isinstance(data, str) else data

    @rules
    def _label_can_be_used(self) -> Iterable[str | None]:
        try:
            if self.label:
                check_label(self.label)
        except ValueError as error:
            yield f"label: {error}"

    @staticmethod
    def _parse(text: str) -> dict[str, Any]:
        raise NotImplementedError


class UpstreamRow(_Named):
    """A row of the table: an upstream and its weights."""

    upstream: str
    """-u of run_downstream.py."""
    checkpoint: str | None = None
    """-k: a checkpoint, an experiment, a URL, a name of weights that come with Mynah, or a model's id in Hugging
    Face's hub."""
    config: str | None = None
    """-g: a YAML file of the model's configuration."""
    sha256: str | None = None
    """Of the checkpoint's file; noted by the program, so that a table never mixes two."""

    _parse = staticmethod(parse_upstream)


class TaskColumn(_Named):
    """A column of the table: a task and its options."""

    task: str
    """-d of run_downstream.py."""
    config: str | None = None
    """-c: a YAML file instead of the task's own."""
    options: list[str] = Field(default_factory=list)
    """-o of this task: texts "key=value"."""
    vary: str | None = None
    """ "key=1,2,3": a cell is the mean over these values of a key, such as folds."""

    _parse = staticmethod(parse_task)

    @property
    def varied(self) -> list[str]:
        """The option that varies, with each of its values; [""] where none does."""
        if self.vary is None:
            return [""]
        key, values = parse_values(self.vary)
        return [f"{key}={value}" for value in values]

    @rules
    def _options_can_be_read(self) -> Iterable[str | None]:
        yield from _unreadable(self.options, [] if self.vary is None else [self.vary])


class TableConfig(Section):
    """A whole table, as a file of -c holds it."""

    upstreams: list[UpstreamRow] = Field(min_length=1)
    """Texts [LABEL:]UPSTREAM[=CKPT][@CONFIG.yaml], or mappings of the fields of a row."""
    tasks: list[TaskColumn] = Field(min_length=1)
    """Texts [LABEL:]TASK[@CONFIG.yaml], or mappings of the fields of a column."""
    lrs: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list)
    """Learning rates of the head, among which dev chooses; none for the task's own."""
    seeds: int = Field(1, ge=1, le=1000)
    """Repetitions, with the seeds 1, 2, ..."""
    sweep: Annotated[str, one_of(SWEEPS)] = "first"
    """Which seeds are trained at every learning rate: the first one, the others at the rate it chose; or all."""
    options: list[str] = Field(default_factory=list)
    """ "key=value" for all tasks, "LABEL:key=value" for one."""
    vary: list[str] = Field(default_factory=list)
    """ "LABEL:key=1,2,3": a cell of that task is the mean over these values of a key."""

    @rules
    def _rates_are_given_once(self) -> Iterable[str | None]:
        if len(set(self.lrs)) < len(self.lrs):
            yield f"lrs: {shown(self.lrs)} has a learning rate twice; keep one"

    @rules
    def _options_can_be_read(self) -> Iterable[str | None]:
        yield from _unreadable(
            [split_target(option)[1] for option in self.options], [split_target(text)[1] for text in self.vary]
        )


def read_table(file: Path | None, given: dict[str, Any]) -> TableConfig:
    """The table of a file of -c, with what the command line gives: rows and the like instead, options after its own.

    given: fields of TableConfig, those that are not given left out. Raises UserError.
    """
    plain = {} if file is None else to_plain(load_config(TableConfig, files=[file]))
    if missing := [f"--{key}" for key in ("upstreams", "tasks") if key not in plain and key not in given]:
        raise UserError(f"a table needs {' and '.join(missing)}; give them, or a file of a table with -c")
    added = {key: [*plain.get(key, ()), *as_several(given.get(key, ()))] for key in ("options", "vary")}
    config = from_plain(TableConfig, {**plain, **given, **added}, "the table's options")
    return complete(config, last=as_several(given.get("options", ())))


def complete(config: TableConfig, last: Sequence[str] = ()) -> TableConfig:
    """Every label made, and every option at its task, general ones before the task's own.

    last: options that come after both, as those of a command line do. Raises UserError where that is not possible.
    """
    _check_given_once("upstreams", config.upstreams)
    _check_given_once("tasks", config.tasks)
    rows = [
        row.replace(label=label)
        for row, label in zip(
            config.upstreams,
            choose_labels(
                [row.label for row in config.upstreams],
                [
                    lambda row=row: upstream_labels(row.upstream, row.checkpoint, row.config)
                    for row in config.upstreams
                ],
            ),
            strict=True,
        )
    ]
    labels = choose_labels(
        [column.label for column in config.tasks], [lambda column=column: [column.task] for column in config.tasks]
    )
    _check_distinct("upstreams", [row.label for row in rows])
    _check_distinct("tasks", labels)
    columns = []
    for column, label in zip(config.tasks, labels, strict=True):
        general, asked = (_options_for(label, options, labels) for options in (config.options, last))
        options = [*DEFAULT_OPTIONS, *general, *column.options, *asked]
        columns.append(
            column.replace(label=label, options=_last_of_each(options), vary=_vary_of(column, label, config, labels))
        )
    for column in columns:
        _check_options(column, config)
    return config.replace(upstreams=rows, tasks=columns, options=[], vary=[])


def _unreadable(options: Sequence[str], vary: Sequence[str]) -> Iterable[str]:
    """What is wrong with texts "key=value" and "key=1,2"."""
    for option in options:
        if not option.partition("=")[0].strip() or "=" not in option:
            yield f"options: expected KEY=VALUE, got {shown(option)}"
    for text in vary:
        try:
            parse_values(text)
        except ValueError as error:
            yield f"vary: {error}"


def _options_for(label: str, options: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Of the texts "key=value" and "LABEL:key=value" those for one task, the general ones first."""
    targets = [split_target(option) for option in options]
    for target, _ in targets:
        _check_target(target, labels)
    return [text for wanted in (None, label) for target, text in targets if target == wanted]


def _last_of_each(options: Sequence[str]) -> list[str]:
    """The last text of each key, where it stands: of several values of a key the last one counts."""
    found: dict[str, str] = {}
    for option in reversed(options):
        found.setdefault(option.partition("=")[0].strip(), option)
    return list(found.values())[::-1]


def _check_target(target: str | None, labels: Sequence[str]) -> None:
    if target is not None and target not in labels:
        near = nearest(target, labels)
        hint = f"; did you mean {near}?" if near else ""
        raise UserError(f"{target}: is no task of the table, which has {', '.join(labels)}{hint}")


def _vary_of(column: TaskColumn, label: str, config: TableConfig, labels: Sequence[str]) -> str | None:
    found = [column.vary] if column.vary is not None else []
    for text in config.vary:
        target, values = split_target(text)
        _check_target(target, labels)
        if target is None and len(labels) > 1:
            raise UserError(f"--vary {text}: expected TASK:{text}, as the table has several tasks")
        if target in (None, label):
            found.append(values)
    if len(found) > 1:
        raise UserError(f"{label}: one key can vary, but {' and '.join(found)} are given")
    return found[0] if found else None


def _check_options(column: TaskColumn, config: TableConfig) -> None:
    """Raise UserError for options that the table itself sets."""
    own = {"seed": "--seeds N repeats experiments with the seeds 1 to N"}
    if config.lrs:
        own[LR] = "--lrs gives the learning rates"
    if column.vary is not None:
        key, values = parse_values(column.vary)
        for index, value in enumerate(values):
            if twin := next((each for each in values[:index] if folder_name(each) == folder_name(value)), None):
                raise UserError(
                    f"--vary {column.label}:{column.vary}: {twin} and {value} would give folders of one name; "
                    "write one of them in another way"
                )
        if key in own:
            raise UserError(f"--vary {column.label}:{column.vary}: {own[key]}")
        own[key] = f"--vary {column.label}:{column.vary} gives its values"
    for option in column.options:
        key = option.partition("=")[0].strip()
        if key in own:
            raise UserError(f"-o {option}: {own[key]}; leave one of them out")


def _check_given_once(what: str, given: Sequence[UpstreamRow] | Sequence[TaskColumn]) -> None:
    for index, each in enumerate(given):
        if each in given[:index]:
            name = each.label or (each.upstream if isinstance(each, UpstreamRow) else each.task)
            raise UserError(f"{what}: {name} is given twice, the same in all; leave one out")


def _check_distinct(what: str, labels: Sequence[str]) -> None:
    for index, label in enumerate(labels):
        twin = next((each for each in labels[:index] if folder_name(each) == folder_name(label)), None)
        if twin == label:
            raise UserError(f"{what}: the label {label!r} stands twice; give each one of its own")
        if twin is not None:
            raise UserError(f"{what}: the labels {twin!r} and {label!r} give folders of one name; change one")


def _checked(parse: Any, text: str) -> Any:
    """What `parse` gives; in a validator its ValueError is shown as it is."""
    try:
        return parse(text)
    except ValueError as error:
        refuse([str(error)])
