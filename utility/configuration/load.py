"""Configurations: YAML files and command-line overrides, merged and checked against dataclasses.

A plugin's schema is a dataclass whose fields may be dataclasses (sections). A dataclass may define
`problems()`, which yields "key: what is wrong" for values that its types allow but that cannot be meant.
Whatever is wrong is found before anything else happens and told in one UserError.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mynah.utility.configuration.checks import choice_problem, positive_problem, range_problem, shown
from mynah.utility.configuration.schema import closest_key, conform, split_optional, type_at
from mynah.utility.configuration.tree import NOT_SET, clear, find_problems, find_unresolved, leaves, upwards
from mynah.utility.configuration.yaml_text import dump_yaml, parse_yaml, read_yaml_file, typed_text
from mynah.utility.errors import UserError

__all__ = [
    "choice_problem",
    "from_plain",
    "load_config",
    "positive_problem",
    "range_problem",
    "save_config",
    "to_plain",
]

Schema = TypeVar("Schema")


def load_config(
    schema: type[Schema], *, files: Sequence[Path], overrides: Sequence[str] = (), demo: bool = False
) -> Schema:
    """The configuration that YAML files and overrides give, as an instance of the dataclass `schema`.

    files: merged in order; each may have a top-level `demo:` mapping of the same keys, which is merged
    right after its file if `demo`, and is checked in any case. overrides: "model.hidden_size=96" or
    "datarc.file_path={a: /x}", YAML values, applied last; a whole mapping replaces the one before it,
    "datarc.file_path.a=/x" sets one entry. Values may refer to others as ${model.hidden_size}.
    Raises UserError with all unknown keys, wrong types, missing and impossible values, a line each.
    """
    building = _Building(schema)
    for file in files:
        building.add_file(Path(file), demo)
    for override in overrides:
        building.add_override(override)
    return building.finish()


def from_plain(schema: type[Schema], plain: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> Schema:
    """A plain dict, as to_plain gives it, back as an instance of `schema`; checked as load_config does.

    source: where the dict comes from (such as a checkpoint's path), for the message. overrides: as load_config
    takes them. Raises UserError.
    """
    building = _Building(schema)
    building.sources.append(source)
    if isinstance(plain, dict):
        building.add(_Layer(source, plain))
    else:
        building.note("", f"expected a mapping, got {shown(plain)}", source)
        building.readable = False
    for override in overrides:
        building.add_override(override)
    return building.finish()


def to_plain(config: Any) -> Any:
    """A configuration as plain dict, list, str, int, float, bool and None, for checkpoints and YAML."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {str(key): to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(value) for value in config]
    if config is None or type(config) in (str, int, float, bool):
        return config
    raise TypeError(f"{config!r} ({type(config).__name__}) is not a configuration value")


def save_config(config: Any, path: Path) -> None:
    """Write a configuration as YAML that load_config reads back; the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(dump_yaml(to_plain(config)), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclasses.dataclass
class _Layer:
    """One source of values."""

    source: str
    data: dict[str, Any]
    lines: dict[str, int] = dataclasses.field(default_factory=dict)  # of the keys, with the prefix
    prefix: str = ""  # "demo." for a demo section
    replaces: list[str] | None = None  # an override's key, if a mapping there is to be replaced whole

    def where(self, key: str) -> str:
        line = next((self.lines[part] for part in upwards(self.prefix + key) if part in self.lines), None)
        return self.source if line is None else f"{self.source}, line {line}"


class _Building:
    """Collects layers and problems; `finish` gives the configuration or raises."""

    def __init__(self, schema: type):
        self.schema = schema
        self.layers: list[_Layer] = []
        self.sources: list[str] = []
        self.problems: list[tuple[str, str, str, str]] = []  # key, what is wrong, source, where in it
        self.readable = True  # whether every source could be read, so that what is missing is truly missing

    def note(self, key: str, text: str, source: str, where: str | None = None) -> None:
        """Keep a problem; a source of "" stands for a value that no file or override gives."""
        self.problems.append((key, text, source, where or source))

    def add(self, layer: _Layer, used: bool = True) -> None:
        """Check a layer's keys and types; keep what fits, if it is to be used."""
        fitting, problems = conform(self.schema, layer.data)
        for key, text in problems:
            self.note(layer.prefix + key, text, layer.source, layer.where(key))
        if used:
            self.layers.append(dataclasses.replace(layer, data=fitting))

    def add_file(self, path: Path, demo: bool) -> None:
        source = _display(path)
        self.sources.append(source)
        try:
            data, lines = read_yaml_file(path)
        except UserError as error:
            self.readable = False
            return self.note("", str(error), source)
        demo_data = data.pop("demo", {})
        self.add(_Layer(source, data, lines))
        if isinstance(demo_data, dict):
            return self.add(_Layer(source, demo_data, lines, prefix="demo."), used=demo)
        return self.note("demo", f"expected a section, got {shown(demo_data)}", source)

    def add_override(self, override: str) -> None:
        source = f"-o {override}"
        self.sources.append(source)
        key, equals, text = override.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            example = closest_key(self.schema, key.strip())
            return self.note("", f"expected KEY=VALUE, such as {example or 'section.key'}=VALUE", source)
        hint, optional = split_optional(type_at(self.schema, parts))
        try:
            value = typed_text(text) if hint is str else parse_yaml(text)[0]
        except UserError as error:
            return self.note(".".join(parts), str(error), source)
        if hint is str and optional and not text.strip():
            value = None
        data = value
        for part in reversed(parts):
            data = {part: data}
        is_mapping = isinstance(value, dict) and not dataclasses.is_dataclass(hint)
        return self.add(_Layer(source, data, replaces=parts if is_mapping else None))

    def finish(self) -> Any:
        """The configuration as a dataclass instance; UserError if there is any problem."""
        config = self.merged() if self.readable else None
        if config is not None:
            reported = {key for key, *_ in self.problems}
            for key, text in find_problems(config, ""):
                if key not in reported:
                    self.note(key, text, *self.origin(key))
        if self.problems:
            raise UserError(self.message())
        return OmegaConf.to_object(config)

    def merged(self) -> DictConfig | None:
        """All layers in one; None if they do not merge or a reference leads nowhere (it is noted why)."""
        config = OmegaConf.structured(self.schema)
        for layer in self.layers:
            if layer.replaces:
                clear(config, layer.replaces)
            try:
                config = OmegaConf.merge(config, layer.data)
            except OmegaConfBaseException as error:
                self.note(str(error.full_key or ""), f"cannot be merged: {str(error).splitlines()[0]}", layer.source)
                return None
        unresolved = list(find_unresolved(config, ""))
        for key, text in unresolved:
            self.note(key, text, *self.origin(key))
        return None if unresolved else config

    def origin(self, key: str) -> tuple[str, str]:
        """(source, where in it) of the value at a key: the last layer that gives it."""
        for part in upwards(key):
            for layer in reversed(self.layers):
                if any(leaf == part or leaf.startswith(f"{part}[") for leaf in leaves(layer.data, "")):
                    return layer.source, layer.where(part)
        return "", "by default"

    def message(self) -> str:
        """All problems, a line each, under a heading that names their sources."""
        guilty = {source for _, _, source, _ in self.problems if source}
        sources = [source for source in self.sources if source in guilty] or self.sources
        heading = ", ".join(dict.fromkeys(sources)) or f"the defaults of {self.schema.__name__}"
        lines = [f"configuration problems in {heading}:"]
        for key, text, _, where in self.problems:
            at = "" if where == heading or text == NOT_SET.format(key=key) else f"  [{where}]"
            lines.append(f"  {key}{': ' if key else ''}{text}{at}")
        return "\n".join(dict.fromkeys(lines))


def _display(path: Path) -> str:
    """A path as short as it can be: relative to the current folder where it lies below that."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
