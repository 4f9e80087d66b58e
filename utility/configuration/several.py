"""One value or several, as callers in Python give them: a text where a list of texts is taken is one text."""

from collections.abc import Iterable
from pathlib import Path


def as_several(given: str | Path | Iterable[str | Path]) -> list[str | Path]:
    """[given] for a text or a path, otherwise its items."""
    return [given] if isinstance(given, str | Path) else list(given)
