"""Does plain data fit a configuration dataclass? Every problem is found, not only the first.

Stricter than OmegaConf on purpose, which takes '3' for a whole number and stops at the first error.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Union, get_args, get_origin

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mynah.utility.configuration.checks import nearest, shown

_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_DROP = object()  # stands for a value that does not fit; it is reported and left out


def conform(schema: type, data: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The part of `data` that fits the dataclass, and (key, what is wrong) for all that does not.

    Values are brought to the field's type where nothing is lost: 3 or "1e-4" for a float, 1e5 for an int.
    `${other.key}`, which refers to another value, fits every single value; `???` says "not set".
    Raises TypeError if the dataclass itself has a field of a type that configurations do not know.
    """
    check = _Check(schema)
    fitting = check.section(data, schema, "")
    return fitting, check.problems


def field_types(schema: type) -> dict[str, Any]:
    """The type of each field of a dataclass, by name, in order."""
    hints = typing.get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema) if field.init}


def known_keys(schema: type, prefix: str = "") -> list[str]:
    """Every key that a dataclass and its sections know, as "model" and "model.hidden_size"."""
    keys = []
    for name, hint in field_types(schema).items():
        keys.append(prefix + name)
        section, _ = split_optional(hint)
        if dataclasses.is_dataclass(section):
            keys += known_keys(section, f"{prefix}{name}.")
    return keys


def closest_key(schema: type, key: str) -> str | None:
    """The known key that `key` may mean: the same name in another section, else one that is much alike."""
    known = known_keys(schema)
    name = key.rpartition(".")[2].lower()
    elsewhere = [one for one in known if one.rpartition(".")[2].lower() == name]
    if elsewhere:
        return nearest(key, elsewhere) or elsewhere[0]
    return nearest(key, [one for one in known if not key.startswith(f"{one}.")], likeness=0.8)


def type_at(schema: type, parts: list[str]) -> Any:
    """The type of the value at a key such as ["datarc", "file_path", "a"]; None if there is no such key."""
    hint: Any = schema
    for part in parts:
        section, _ = split_optional(hint)
        if dataclasses.is_dataclass(section):
            hint = field_types(section).get(part)
        elif get_origin(section) is dict:
            hint = get_args(section)[1]
        else:
            hint = Any if section in (Any, dict) else None
        if hint is None:
            return None
    return hint


def split_optional(hint: Any) -> tuple[Any, bool]:
    """(the type without None, whether None is allowed)."""
    if hint is Any:
        return Any, True
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    inner = tuple(part for part in get_args(hint) if part is not type(None))
    return (inner[0] if len(inner) == 1 else Union[inner]), len(inner) < len(get_args(hint))  # noqa: UP007


class _Check:
    """Walks data and types side by side and notes the problems."""

    def __init__(self, schema: type):
        self.schema = schema
        self.problems: list[tuple[str, str]] = []

    def value(self, value: Any, hint: Any, key: str) -> Any:
        hint, optional = split_optional(hint)
        if value is None and optional:
            return None
        if dataclasses.is_dataclass(hint):
            return self.section(value, hint, key)
        if value == MISSING:
            return value
        if hint is dict or get_origin(hint) is dict:
            return self.mapping(value, (get_args(hint) or (str, Any))[1], key)
        if hint is list or get_origin(hint) is list:
            return self.list(value, (get_args(hint) or (Any,))[0], key)
        if isinstance(value, str) and "${" in value:
            return self.reference(value, key)
        if hint is Any:
            return self.anything(value, key)
        return self.scalar(value, hint, key)

    def section(self, value: Any, schema: type, key: str) -> Any:
        fields = field_types(schema)
        if not isinstance(value, dict):
            return self.refuse(key, f"a section with the keys {', '.join(fields)}", value)
        fitting = {}
        for name, item in value.items():
            if name in fields:
                fitting[name] = self.value(item, fields[name], _join(key, name))
            else:
                self.unknown(key, str(name), item, list(fields))
        fitting = {name: item for name, item in fitting.items() if item is not _DROP}
        # A section left with nothing is left out: it must not switch on an optional section.
        return fitting if fitting or not value or not key else _DROP

    def mapping(self, value: Any, hint: Any, key: str) -> Any:
        if not isinstance(value, dict):
            return self.refuse(key, "a mapping such as {name: value}", value)
        fitting = {}
        for name, item in value.items():
            if isinstance(name, str):
                fitting[name] = self.value(item, hint, _join(key, name))
            else:
                self.problems.append((key, f"its key {shown(name)} is not text; put the key in quotes"))
        return {name: item for name, item in fitting.items() if item is not _DROP}

    def list(self, value: Any, hint: Any, key: str) -> Any:
        if not isinstance(value, list):
            return self.refuse(key, "a list such as [a, b]", value)
        fitting = [self.value(item, hint, f"{key}[{index}]") for index, item in enumerate(value)]
        return _DROP if any(item is _DROP for item in fitting) else fitting

    def anything(self, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return self.mapping(value, Any, key)
        if isinstance(value, list):
            return self.list(value, Any, key)
        plain = value is None or isinstance(value, (bool, int, float, str))
        return value if plain else self.refuse(key, "a plain value", value)

    def scalar(self, value: Any, hint: Any, key: str) -> Any:
        allowed = get_args(hint) if get_origin(hint) is Union else (hint,)
        if not set(allowed) <= set(_EXPECTED):
            raise TypeError(f"{key}: a configuration field cannot have the type {hint}")
        if type(value) in allowed and value == value:  # NaN, which is not itself, is never meant
            return value
        if type(value) is int and float in allowed:
            return float(value)
        if type(value) is float and int in allowed and value.is_integer():
            return int(value)
        if isinstance(value, str) and float in allowed and _number(value) is not None:
            return _number(value)
        quotes = isinstance(value, (bool, int, float)) and str in allowed
        expected = " or ".join(_EXPECTED[one] for one in allowed)
        return self.refuse(key, expected, value, "; put it in quotes if text is meant" if quotes else "")

    def reference(self, value: str, key: str) -> Any:
        try:
            OmegaConf.create({"value": value})
        except OmegaConfBaseException:
            text = f"{shown(value)} is no valid ${{other.key}}; write \\${{ for a plain ${{"
            self.problems.append((key, text))
            return _DROP
        return value

    def refuse(self, key: str, expected: str, value: Any, advice: str = "") -> Any:
        self.problems.append((key, f"expected {expected}, got {shown(value)}{advice}"))
        return _DROP

    def unknown(self, parent: str, name: str, value: Any, siblings: list[str]) -> None:
        rest = ""
        while isinstance(value, dict) and len(value) == 1:  # modle: {lr: 3} is about modle.lr
            ((inner, value),) = value.items()
            rest += f".{inner}"
        key = _join(parent, name) + rest
        sibling = nearest(name, siblings)
        if sibling and (not rest or _join(parent, sibling) + rest in known_keys(self.schema)):
            guess = _join(parent, sibling) + rest
        else:
            guess = closest_key(self.schema, key)
        place = f"keys of {parent}" if parent else "keys"
        help_text = f"did you mean {guess}?" if guess else f"possible {place}: {', '.join(siblings)}"
        self.problems.append((key, f"unknown key; {help_text}"))


def _join(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number == number else None
