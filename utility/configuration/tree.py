"""Walks over a merged configuration: what is not set, what cannot be meant, which reference leads nowhere.

Keys are written "section.list[0].name" throughout.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    InterpolationValidationError,
    OmegaConfBaseException,
)

from mynah.utility.configuration.checks import shown

NOT_SET = "must be set; give it in the YAML file or with -o {key}=VALUE"

_REASONS = {
    InterpolationKeyError: "there is no such key",
    InterpolationToMissingValueError: "that value is not set",
    InterpolationValidationError: "that value is of another type",
}


def find_problems(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """(key, what is wrong): values that are not set, and impossible ones in sections that are complete."""
    missing = OmegaConf.missing_keys(node)
    if not missing:
        yield from _impossible_values(OmegaConf.to_object(node), key)
        return
    for name, child in _children(node):
        full_key = _below(node, key, name)
        if OmegaConf.is_missing(node, name):
            yield full_key, NOT_SET.format(key=full_key)
        elif isinstance(child, (DictConfig, ListConfig)):
            yield from find_problems(child, full_key)


def _impossible_values(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, (list, dict)):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _impossible_values(item, _below(value, key, name))
    if not dataclasses.is_dataclass(value):
        return
    tell: Iterable[str | None] = value.problems() if hasattr(value, "problems") else ()
    for problem in filter(None, tell):
        named = re.match(r"([\w.\[\]]+): (.*)", problem, re.DOTALL)
        yield (_below({}, key, named[1]), named[2]) if named else (key, problem)
    for field in dataclasses.fields(value):
        yield from _impossible_values(getattr(value, field.name), _below({}, key, field.name))


def find_unresolved(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of values that refer to others, as ${a.b}, that are not there or do not fit."""
    for name, child in _children(node):
        full_key = _below(node, key, name)
        if isinstance(child, OmegaConfBaseException):
            raw = OmegaConf.to_container(node, resolve=False)[name]
            yield full_key, f"{shown(raw)} cannot be filled in: {_reason(child)}"
        elif isinstance(child, (DictConfig, ListConfig)) and not OmegaConf.is_interpolation(node, name):
            yield from find_unresolved(child, full_key)


def _reason(error: OmegaConfBaseException) -> str:
    known = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), None)
    return known or str(error).splitlines()[0]


def _children(node: DictConfig | ListConfig) -> Iterator[tuple[Any, Any]]:
    """(name or index, value) of each entry: None for one that is missing, the error for one that has one."""
    for name in list(node.keys()) if isinstance(node, DictConfig) else range(len(node)):
        try:
            yield name, None if OmegaConf.is_missing(node, name) else node[name]
        except OmegaConfBaseException as error:
            yield name, error


def clear(config: DictConfig, parts: list[str]) -> None:
    """Empty the mapping at a key, if there is one."""
    node: Any = config
    for part in parts:
        node = node.get(part) if isinstance(node, DictConfig) else None
    for name in list(node or ()):
        del node[name]


def leaves(data: Any, key: str) -> set[str]:
    """The keys of all values in plain data, as "a.b[0].c"."""
    if isinstance(data, (dict, list)) and data:
        items = data.items() if isinstance(data, dict) else enumerate(data)
        return set().union(*(leaves(value, _below(data, key, name)) for name, value in items))
    return {key}


def _below(parent: Any, key: str, name: Any) -> str:
    if isinstance(parent, (list, ListConfig)):
        return f"{key}[{name}]"
    return f"{key}.{name}" if key else str(name)


def upwards(key: str) -> Iterator[str]:
    """The key and the keys above it: a.b[0], a.b, a."""
    while key:
        yield key
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
