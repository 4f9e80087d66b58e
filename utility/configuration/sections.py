"""Sections of a configuration: pydantic models with bounds at the field, choices by name, and rules across fields."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

MAX_INTEGER = 2**63 - 1
RULE = "rule"
"""The type of pydantic's error that carries what is wrong as it is to be shown."""

Own = TypeVar("Own", bound="Section")


class Section(BaseModel):
    """Base of every section: values are checked when it is built, without conversion, and keys must be known.

    class ModelConfig(Section):
        hidden_size: int = Field(128, gt=0)
        pooling: Annotated[str, one_of(POOLINGS)] = "mean"
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="after")
    def _whole_numbers_are_of_64_bits(self: Own) -> Own:
        large = [name for name, value in self if type(value) is int and abs(value) > MAX_INTEGER]
        refuse(
            f"{name}: expected a whole number of at most 64 bits, got {shown(getattr(self, name))}" for name in large
        )
        return self

    def replace(self: Own, **changes: Any) -> Own:
        """A copy with other values, checked. Raises pydantic's ValidationError, a ValueError."""
        return type(self)(**{**dict(self), **changes})


def one_of(choices: Iterable[str]) -> AfterValidator:
    """For Annotated[str, ...]: the text must be one of these, such as the keys of a registry."""

    def check(value: str) -> str:
        if value not in choices:
            near = nearest(value, choices)
            hint = f" (did you mean {near}?)" if near else ""
            raise PydanticCustomError(
                RULE, "{text}", {"text": f"{shown(value)} is not one of {', '.join(choices)}{hint}"}
            )
        return value

    return AfterValidator(check)


def rules(problems: Callable[[Any], Iterable[str | None]]) -> Any:
    """Decorator of a method that yields "key: what is wrong" for values that are impossible together, or None.

    It runs once every field is valid by itself. Subclasses add to it by a method of another name.
    """

    @wraps(problems)
    def check(self: Any) -> Any:
        refuse(problems(self))
        return self

    return model_validator(mode="after")(check)


def refuse(problems: Iterable[str | None]) -> None:
    """In a validator: say what is wrong, None aside; of a section or mapping as "key: what is wrong"."""
    if found := [problem for problem in problems if problem]:
        raise PydanticCustomError(RULE, "{text}", {"text": "\n".join(found)})


MIN_BEGINNING = 3


def nearest(given: str, possible: Iterable[str], likeness: float = 0.6) -> str | None:
    """The possible name most like the given one, whatever its case; None if none is that alike (0 to 1).

    A single one that begins with the given text (of three letters at least) goes before others.
    """
    by_lower = {name.lower(): name for name in possible}
    continued = [name for lower, name in by_lower.items() if lower.startswith(given.lower())]
    if len(continued) == 1 and len(given) >= MIN_BEGINNING:
        return continued[0]
    matches = difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[matches[0]] if matches else None


def shown(value: Any) -> str:
    """A value as a YAML reader knows it (null, true, 'text'), shortened to fit a line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    kind = {dict: "a mapping ", list: "a list "}.get(type(value), "")
    try:
        text = repr(value)
    except ValueError:  # Python writes no numbers of thousands of digits
        text = "a number of thousands of digits"
    return kind + (text if len(text) <= 60 else f"{text[:57]}...")


def sections_of(registry: Mapping[str, Any]) -> type[Section]:
    """A section that holds, under the name of each class of a registry, the section `Config` of that class.

    The registry itself is its attribute REGISTRY.
    """
    fields = {name: (one.Config, Field(default_factory=one.Config)) for name, one in registry.items()}
    sections = create_model("Sections", __base__=Section, **fields)
    sections.REGISTRY = registry
    return sections
