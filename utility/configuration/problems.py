"""Validation of plain data against a section: pydantic's errors, with the keys and words of YAML.

Keys are written "section.list[0].name" throughout.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mynah.utility.configuration.sections import RULE, nearest, shown

NOT_SET = "must be set; give it in the YAML file or with -o {key}=VALUE"

_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "string": "text",
    "str": "text",
    "list": "a list such as [a, b]",
    "dict": "a mapping such as {name: value}",
}
_BOUNDS = {"gt": "more than {}", "ge": "{} or more", "lt": "less than {}", "le": "{} or less"}


def validate(schema: type, data: dict[str, Any]) -> tuple[Any, list[tuple[str, str]]]:
    """(an instance of the section `schema`, []), or (None, [(key, what is wrong), ...]) with everything found.

    Numbers are taken as people write them: 1e3 for a whole number, "1e-4" for a number. `data` is not changed.
    """
    for _ in range(2):
        try:
            return schema.model_validate(data), []
        except ValidationError as error:
            errors = error.errors(include_url=False)
        numbers = [(each["loc"], number) for each in errors if (number := _as_number(each)) is not None]
        if not numbers:
            break
        for place, number in numbers:
            data = _replaced(data, place, number)
    # Where a key is unknown, another that is missing is probably what it was meant to be.
    misspelt = {each["loc"][:-1] for each in errors if each["type"] == "extra_forbidden"}
    errors = [each for each in errors if each["type"] != "missing" or each["loc"][:-1] not in misspelt]
    found = [problem for each in errors for problem in _problems(schema, each, errors)]
    return None, list(dict.fromkeys([*found, *_broken_rules(schema, data, errors, {key for key, _ in found})]))


def is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def type_at(schema: Any, parts: tuple[str | int, ...]) -> Any:
    """The type, None left out, of the value at a place such as ("datarc", "file_path"); None for no such key."""
    for part in parts:
        schema = _without_none(schema)
        if is_section(schema):
            field = schema.model_fields.get(part)
            schema = field and field.annotation
        elif get_origin(schema) in (dict, list):
            schema = get_args(schema)[-1]
        else:
            schema = Any if schema in (Any, dict, list) else None
        if schema is None:
            return None
    return _without_none(schema)


def closest_key(schema: type, key: str) -> str | None:
    """The known key that `key` may mean: the same name in another section, else one that is much alike."""
    known = list(_known_keys(schema, ""))
    name = key.rpartition(".")[2].lower()
    elsewhere = [one for one in known if one.rpartition(".")[2].lower() == name]
    if elsewhere:
        return nearest(key, elsewhere) or elsewhere[0]
    return nearest(key, [one for one in known if not key.startswith(f"{one}.")], likeness=0.8)


def join_key(parent: str, part: str | int) -> str:
    if isinstance(part, int):
        return f"{parent}[{part}]"
    return f"{parent}.{part}" if parent else part


def _problems(schema: type, error: ErrorDetails, errors: list[ErrorDetails]) -> Iterator[tuple[str, str]]:
    place, kind, value, context = error["loc"], error["type"], error["input"], error.get("ctx", {})
    if place and place[-1] == "[key]":
        yield _key(place[:-2]), f"its key {shown(place[-2])} is not text; put the key in quotes"
        return
    alternatives: list[str] = []
    if _is_branch(schema, place):
        place = place[:-1]
        alternatives = [_EXPECTED[each["loc"][-1]] for each in errors if each["loc"][:-1] == place]
    key = _key(place)
    if kind == RULE:
        for line in context["text"].split("\n"):
            named = re.match(r"([\w.\[\]]+): (.*)", line) if _has_keys(type_at(schema, place)) else None
            yield (join_key(key, named[1]), named[2]) if named else (key, line)
    elif kind == "missing":
        for name in _required(type_at(schema, place), key):
            yield name, NOT_SET.format(key=name)
    elif kind == "extra_forbidden":
        yield _unknown(schema, place, value)
    elif kind == "model_type":
        names = ", ".join(type_at(schema, place).model_fields)
        yield key, f"expected a section with the keys {names}, got {shown(value)}"
    elif bounds := {name: context[name] for name in _BOUNDS if name in context}:
        ((name, bound),) = bounds.items()
        yield key, f"expected {_range(schema, place) or _BOUNDS[name].format(bound)}, got {shown(value)}"
    elif alternatives or kind.split("_")[0] in _EXPECTED:
        expected = " or ".join(alternatives) or _EXPECTED[kind.split("_")[0]]
        quotes = isinstance(value, (bool, int, float)) and "text" in expected
        yield key, f"expected {expected}, got {shown(value)}" + "; put it in quotes if text is meant" * quotes
    else:
        yield key, f"{error['msg']}, got {shown(value)}"


def _broken_rules(
    schema: type, data: dict[str, Any], errors: list[ErrorDetails], wrong: set[str]
) -> Iterator[tuple[str, str]]:
    """What rules say of the rest: pydantic asks those of a section only if all in it is valid.

    wrong: the keys that are known to be. The defaults stand in for them here, or for the whole section where one of
    its own rules is broken, so what speaks of one of them is left out.
    """
    while errors:
        about = re.compile(rf"\b({'|'.join(re.escape(key.rpartition('.')[2]) for key in wrong)})\b")
        reset = tuple(_key(error["loc"]) for error in errors if error["loc"])
        earlier = data
        for error in errors:
            data = _without(data, error["loc"])
        if data == earlier:
            return
        try:
            schema.model_validate(data)
        except ValidationError as error:
            errors = [each for each in error.errors(include_url=False) if each["type"] == RULE]
            found = [one for each in errors for one in _problems(schema, each, [])]
            yield from (one for one in found if not one[0].startswith(reset) and not about.search(": ".join(one)))
            wrong = wrong | {key for key, _ in found}
        else:
            return


def _unknown(schema: type, place: tuple[str | int, ...], value: Any) -> tuple[str, str]:
    *above, name = place
    parent, siblings = _key(tuple(above)), list(type_at(schema, tuple(above)).model_fields)
    rest = ""
    while isinstance(value, dict) and len(value) == 1:  # modle: {lr: 3} is about modle.lr
        ((inner, value),) = value.items()
        rest += f".{inner}"
    key = join_key(parent, str(name)) + rest
    sibling = nearest(str(name), siblings)
    guess = sibling and join_key(parent, sibling) + rest
    if not guess or (rest and guess not in _known_keys(schema, "")):
        guess = closest_key(schema, key)
    where = f"keys of {parent}" if parent else "keys"
    return key, "unknown key; " + (f"did you mean {guess}?" if guess else f"possible {where}: {', '.join(siblings)}")


def _known_keys(schema: type, prefix: str) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        yield prefix + name
        inner = _without_none(field.annotation)
        if is_section(inner):
            yield from _known_keys(inner, f"{prefix}{name}.")


def _required(hint: Any, key: str) -> Iterator[str]:
    """The key itself, or of a section the keys in it that must be set."""
    if not is_section(hint):
        yield key
        return
    for name, field in hint.model_fields.items():
        if field.is_required():
            yield from _required(field.annotation, join_key(key, name))


def _range(schema: type, place: tuple[str | int, ...]) -> str | None:
    """ "from 0 to 1" where a field has both bounds, themselves allowed."""
    fields = getattr(type_at(schema, place[:-1]), "model_fields", {})
    field = fields.get(place[-1])
    metadata = field.metadata if field else ()
    bounds = {name: getattr(one, name) for one in metadata for name in ("ge", "le") if hasattr(one, name)}
    return f"from {bounds['ge']} to {bounds['le']}" if len(bounds) == 2 else None


def _is_branch(schema: type, place: tuple[str | int, ...]) -> bool:
    """Whether the last part of an error's place names an alternative of a union rather than a key."""
    return len(place) > 1 and get_origin(type_at(schema, place[:-1])) in (Union, types.UnionType)


def _has_keys(hint: Any) -> bool:
    return is_section(hint) or get_origin(hint) is dict


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    inner = tuple(part for part in get_args(hint) if part is not type(None))
    return inner[0] if len(inner) == 1 else Union[inner]  # noqa: UP007


def _as_number(error: ErrorDetails) -> float | None:
    """The number that a value of another type stands for, where it does without loss."""
    value, kind = error["input"], error["type"]
    if kind == "int_type" and type(value) is float and value.is_integer():
        return int(value)
    if kind == "float_type" and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None


def _replaced(data: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """Plain data with another value at a place that it has."""
    if not place:
        return value
    copied = data.copy()
    if (isinstance(data, dict) and place[0] not in data) or isinstance(data, (str, int, float)):
        return data
    copied[place[0]] = _replaced(data[place[0]], place[1:], value)
    return copied


def _without(data: Any, place: tuple[str | int, ...]) -> Any:
    """Plain data without what stands at a place."""
    if not isinstance(data, dict) or not place or place[0] not in data:
        return data
    rest = {name: value for name, value in data.items() if name != place[0]}
    inside = data[place[0]]
    return {**rest, place[0]: _without(inside, place[1:])} if isinstance(inside, dict) and place[1:] else rest


def _key(place: tuple[str | int, ...]) -> str:
    key = ""
    for part in place:
        key = join_key(key, part)
    return key
