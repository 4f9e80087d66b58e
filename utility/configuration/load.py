"""Configurations: YAML files and command-line overrides, merged and validated against a section.

A plugin's schema is a `Section`, whose fields may be sections. Everything that is wrong is found before anything else
happens, and reported in one UserError.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from mynah.utility.configuration.problems import NOT_SET, closest_key, is_section, join_key, type_at, validate
from mynah.utility.configuration.sections import shown
from mynah.utility.configuration.yaml_text import dump_yaml, parse_yaml, read_yaml_file, typed_text
from mynah.utility.errors import UserError
from mynah.utility.storage import write_atomically

log = logging.getLogger("mynah")

Schema = TypeVar("Schema")


def load_config(
    schema: type[Schema], *, files: Sequence[Path], overrides: Sequence[str] = (), demo: bool = False
) -> Schema:
    """The configuration that YAML files and overrides give, as an instance of the section `schema`.

    files: merged in order; each may have a top-level `demo:` mapping of the same keys, which is merged right after
    its file if `demo`, and is checked in any case; with `demo`, one file must have it. The first may say
    `base: FILE`, a file beside it whose values come before its own. overrides:
    "model.hidden_size=96" or "datarc.file_path={a: /x}", YAML values, applied last; a whole mapping
    replaces the one before it, "datarc.file_path.a=/x" sets one entry.
    Raises UserError with all unknown keys, wrong types, missing and impossible values, a line each.
    """
    _tell_repetitions(overrides)
    return _load(schema, files, overrides, demo)


def _load(schema: type[Schema], files: Sequence[Path], overrides: Sequence[str], demo: bool = False) -> Schema:
    builder = _Builder(schema)
    for index, file in enumerate(files):
        builder.add_file(Path(file), demo, follow_base=index == 0)
    for override in overrides:
        builder.add_override(override)
    config = builder.build()
    if demo and not builder.has_demo:
        raise UserError(
            f"no data configured, and {', '.join(_display(Path(file)) for file in files)} has no section demo with a "
            "recipe of minutes; give datarc.file_path, or add the section"
        )
    return config


def load_recipe(
    schema: type[Schema],
    *,
    files: Sequence[Path],
    overrides: Sequence[str],
    has_data: Callable[[Any], bool],
    demo: bool = False,
) -> Schema:
    """As load_config, with the demo recipe where the configuration names no data.

    An override that only the demo recipe allows (it accumulates no batches, say) is not refused where that one runs.
    """
    _tell_repetitions(overrides)
    if demo:
        return _load(schema, files, overrides, demo=True)
    refused = None
    try:
        config = _load(schema, files, overrides)
        if has_data(config):
            return config
    except UserError as error:
        refused = error
    try:
        config = _load(schema, files, overrides, demo=True)
    except UserError as error:
        raise refused or error from None
    if refused is not None and has_data(config):
        raise refused
    return config


def _tell_repetitions(overrides: Sequence[str]) -> None:
    """A warning for a key that overrides give several values."""
    given: dict[tuple[str, ...], str] = {}
    for override in overrides:
        key, _, text = override.partition("=")
        parts = tuple(part.strip() for part in key.split("."))
        if given.setdefault(parts, text) != text:
            log.warning("-o %s is given twice: %s, then %s; the last one holds", key, given[parts], text)
        given[parts] = text


def from_plain(schema: type[Schema], plain: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> Schema:
    """A plain dict, as to_plain gives it, back as an instance of `schema`; checked as load_config does.

    source: where the dict comes from (such as a checkpoint's path), for the message. overrides: as load_config
    takes them. Raises UserError.
    """
    _tell_repetitions(overrides)
    builder = _Builder(schema)
    builder.sources.append(source)
    if isinstance(plain, dict):
        builder.merge(plain, _Source(source))
    else:
        builder.report("", f"expected a mapping, got {shown(plain)}", _Source(source))
        builder.readable = False
    for override in overrides:
        builder.add_override(override)
    return builder.build()


def to_plain(config: Any) -> Any:
    """A configuration as plain dict, list, str, int, float, bool and None, for checkpoints and YAML."""
    if isinstance(config, BaseModel):
        return {name: to_plain(value) for name, value in config}
    if isinstance(config, dict):
        return {str(key): to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(value) for value in config]
    if config is None or type(config) in (str, int, float, bool):
        return config
    raise TypeError(f"{config!r} ({type(config).__name__}) is not a configuration value")


def save_config(config: Any, path: Path) -> None:
    """Write a configuration as YAML that load_config reads back; the file is there whole or not at all."""
    try:
        write_atomically(path, dump_yaml(to_plain(config)))
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error.strerror or error}); free space there") from error


def merged(data: Any, other: Any) -> Any:
    """Plain data with other data over it: mappings are merged, everything else is replaced."""
    if not isinstance(data, dict) or not isinstance(other, dict):
        return other
    return {**data, **{name: merged(data.get(name), value) for name, value in other.items()}}


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where values come from."""

    name: str
    lines: dict[str, int] = dataclasses.field(default_factory=dict)
    """Of the keys, with the prefix."""
    prefix: str = ""
    """"demo." for a demo section."""

    def place(self, key: str) -> str:
        line = next((self.lines[part] for part in _ancestors(self.prefix + key) if part in self.lines), None)
        return self.name if line is None else f"{self.name}, line {line}"


class _Builder:
    """Merges values and collects problems; `build` gives the configuration or raises."""

    def __init__(self, schema: type):
        self.schema = schema
        self.data: dict[str, Any] = {}
        self.origins: dict[str, _Source] = {}  # of each value, the last source that gave it
        self.sources: list[str] = []
        self.problems: list[tuple[str, str, str, str]] = []  # key, what is wrong, source, place in it
        self.has_demo = False  # whether any file has a demo section
        self.readable = True  # whether every source could be read: else what is missing may stand in another

    def report(self, key: str, text: str, source: _Source | None) -> None:
        """Keep a problem. The source is None for a value that no file or override gives."""
        name, place = (source.name, source.place(key)) if source else ("", "by default")
        self.problems.append((f"{source.prefix if source else ''}{key}", text, name, place))

    def merge(self, data: dict[str, Any], source: _Source) -> None:
        self.data = merged(self.data, data)
        new, kept = _leaves(data, ""), set(_leaves(self.data, ""))
        others = {leaf: origin for leaf, origin in self.origins.items() if leaf in kept.difference(new)}
        self.origins = {**others, **dict.fromkeys(new, source)}

    def add_file(self, path: Path, demo: bool, follow_base: bool = True) -> None:
        """follow_base: whether its key `base` is meant; else what it is based on is there already."""
        for data, source in self._add_values(path, () if follow_base else None):
            self.has_demo = True
            if demo:
                self.merge(data, source)
                continue
            own = _leaves(data, "")
            for key, text in validate(self.schema, merged(self.data, data))[1]:
                if any(_is_in(leaf, key) for leaf in own):
                    self.report(key, text, source)

    def _add_values(self, path: Path, above: tuple[Path, ...] | None) -> list[tuple[dict[str, Any], _Source]]:
        """Merge a file's values over those of its base; their demo sections, in the order in which these are merged.

        above: the files that it is the base of; None to leave out its own base.
        """
        source = _Source(_display(path))
        self.sources.append(source.name)
        try:
            data, lines = read_yaml_file(path)
        except UserError as error:
            self.readable = False
            self.report("", str(error), source)
            return []
        source = _Source(source.name, lines)
        base, demo_data, demos = data.pop("base", None), data.pop("demo", {}), []
        if base is not None and (not isinstance(base, str) or path.parent / base in (*(above or ()), path)):
            self.report("base", f"expected the name of another YAML file beside this one, got {shown(base)}", source)
        elif base is not None and above is not None:
            demos = self._add_values(path.parent / base, (*above, path))
        self.merge(data, source)
        if not isinstance(demo_data, dict):
            self.report("demo", f"expected a section, got {shown(demo_data)}", source)
        elif demo_data:
            demos.append((demo_data, _Source(source.name, lines, "demo.")))
        return demos

    def add_override(self, override: str) -> None:
        source = _Source(f"-o {override}")
        self.sources.append(source.name)
        key, equals, text = override.partition("=")
        parts = tuple(part.strip() for part in key.split("."))
        if not equals or not all(parts):
            example = closest_key(self.schema, key.strip()) or "section.key"
            return self.report("", f"expected KEY=VALUE, such as {example}=VALUE", source)
        hint = type_at(self.schema, parts)
        try:
            value = typed_text(text) if hint is str else parse_yaml(text)[0]
        except UserError as error:
            return self.report(".".join(parts), str(error), source)
        if isinstance(value, dict) and not is_section(hint):
            self.data = merged(self.data, _nested(parts, None))  # a whole mapping replaces the one before it
        return self.merge(_nested(parts, value), source)

    def build(self) -> Any:
        """The configuration as an instance of the schema; UserError if there is any problem."""
        config, found = validate(self.schema, self.data)
        for key, text in found:
            if self.readable or self.origin(key):
                self.report(key, text, self.origin(key))
        if self.problems:
            raise UserError(self.message())
        return config

    def origin(self, key: str) -> _Source | None:
        """The last source of the value at a key, or of anything in it."""
        for part in _ancestors(key):
            inside = [leaf for leaf in self.origins if _is_in(leaf, part)]
            if inside:
                return self.origins[inside[-1]]
        return None

    def message(self) -> str:
        """All problems, a line each, under a heading that names their sources."""
        guilty = {source for _, _, source, _ in self.problems if source}
        sources = [source for source in self.sources if source in guilty] or self.sources
        heading = ", ".join(dict.fromkeys(sources)) or f"the defaults of {self.schema.__name__}"
        lines = [f"configuration problems in {heading}:"]
        for key, text, _, place in self.problems:
            at = "" if place == heading or text == NOT_SET.format(key=key) else f"  [{place}]"
            lines.append(f"  {key}{': ' if key else ''}{text}{at}")
        return "\n".join(dict.fromkeys(lines))


def _nested(parts: Sequence[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts):
        value = {part: value}
    return value


def _leaves(data: Any, key: str) -> list[str]:
    """The keys of all values in plain data, as "a.b[0].c"."""
    if isinstance(data, dict) and data:
        return [leaf for name, value in data.items() for leaf in _leaves(value, join_key(key, str(name)))]
    if isinstance(data, list) and data:
        return [leaf for index, value in enumerate(data) for leaf in _leaves(value, join_key(key, index))]
    return [key]


def _is_in(leaf: str, key: str) -> bool:
    """Whether a value lies at a key or below it."""
    return leaf == key or leaf.startswith((f"{key}[", f"{key}."))


def _ancestors(key: str) -> Iterator[str]:
    """The key and the keys above it: a.b[0], a.b, a."""
    while key:
        yield key
        key = key[: max(key.rfind("."), key.rfind("["), 0)]


def _display(path: Path) -> str:
    """A path as short as it can be: relative to the current folder where it lies below that."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
