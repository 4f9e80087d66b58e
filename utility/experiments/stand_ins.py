"""Torch files that hold Python objects beside tensors, read without making any of these objects."""

import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

UNKNOWN = re.compile(r"GLOBAL (\S+) was not an allowed global")
"""How torch names the first class or function of a file that it does not know."""
MOST_NAMES = 200
"""Different classes and functions of a file; training programs use a dozen."""


class StandIn:
    """In place of any object of a file: takes whatever it is made of, keeps nothing and does nothing."""

    def __new__(cls, *args: Any, **options: Any) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _mapping(*args: Any) -> OrderedDict:
    return OrderedDict()


def _sequence(*args: Any) -> list:
    return []


CONTAINERS: dict[str, Callable[..., Any]] = {"collections.defaultdict": _mapping, "collections.deque": _sequence}
"""What a file fills with items is read as containers that torch lets it fill; optimizers hold the first."""


def load_with_stand_ins(path: Path) -> Any:
    """What a file of `torch.save` holds, of either format, on the CPU: tensors and plain values, and a `StandIn` for
    every other object.

    The reader is torch's own for `weights_only=True`, which calls nothing but what makes tensors and containers. It
    stops at the first name that it does not know; for that name it is then given `StandIn`, while it reads the file
    anew. So nothing else that a file names is ever looked up, imported or called. What torch lets in under no
    circumstances, such as `os.system`, stays refused. Raises whatever the reader does where it fails.
    """
    stand_ins: dict[str, Callable[..., Any]] = {}
    while True:
        try:
            with torch.serialization.safe_globals([(made, name) for name, made in stand_ins.items()]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except UnpicklingError as error:
            found = UNKNOWN.search(str(error))
            if found is None or found[1] in stand_ins or len(stand_ins) > 2 * MOST_NAMES:
                raise
            for name in (found[1], f"builtins.{found[1]}"):  # torch leaves `builtins` out where it names one of it
                stand_ins[name] = CONTAINERS.get(name, StandIn)
