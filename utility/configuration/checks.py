"""Sentences about impossible values, for the `problems()` of configuration dataclasses.

Each check returns None where all is well, so a dataclass says in one place what its values must be:

    def problems(self) -> Iterable[str | None]:
        yield choice_problem("pooling", self.pooling, POOLINGS)
        yield positive_problem("max_steps", self.max_steps)

A value of None means "not set" and passes every numeric check.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def choice_problem(key: str, value: Any, choices: Iterable[str]) -> str | None:
    """What is wrong if `value` is not one of the choices, with the nearest of them."""
    choices = list(choices)
    if value in choices:
        return None
    near = nearest(str(value), choices)
    hint = f" (did you mean {near}?)" if near else ""
    return f"{key}: {shown(value)} is not one of {', '.join(choices)}{hint}"


def positive_problem(key: str, value: float | None) -> str | None:
    """What is wrong if `value` is not above 0."""
    return None if value is None or value > 0 else f"{key}: expected more than 0, got {shown(value)}"


def range_problem(key: str, value: float | None, low: float | None = None, high: float | None = None) -> str | None:
    """What is wrong if `value` is not in [low, high]; a bound of None is no bound."""
    if value is None or ((low is None or value >= low) and (high is None or value <= high)):
        return None
    if low is not None and high is not None:
        expected = f"from {low} to {high}"
    else:
        expected = f"{low} or more" if low is not None else f"{high} or less"
    return f"{key}: expected {expected}, got {shown(value)}"


def nearest(given: str, possible: Iterable[str], likeness: float = 0.6) -> str | None:
    """The possible name most like the given one, whatever its case; None if none is that alike (0 to 1)."""
    by_lower = {name.lower(): name for name in possible}
    matches = difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[matches[0]] if matches else None


def shown(value: Any) -> str:
    """A value as a YAML reader knows it (null, true, 'text'), shortened to fit a line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    kind = {dict: "a mapping ", list: "a list "}.get(type(value), "")
    text = repr(value)
    return kind + (text if len(text) <= 60 else f"{text[:57]}...")
