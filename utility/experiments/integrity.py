"""Whether a file of weights is what was written: checksums, and weights that are finite."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.utility.data.media_files import why_unopenable

ZIP_START = b"PK\x03\x04"
SHOWN = 3


def why_damaged(path: Path) -> str | None:
    """What is wrong with a torch file, as far as that shows without unpickling it; None where nothing is.

    Files of `torch.save` are zip archives, whose CRC-32 checksums torch writes and does not check when it reads.
    Other kinds of files are left to their reader. An answer is remembered until the file changes.
    """
    if reason := why_unopenable(path):
        return reason
    state = path.stat()
    return _why_damaged(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=32)
def _why_damaged(path: Path, inode: int, size: int, changed: int) -> str | None:
    try:
        with path.open("rb") as file:
            start = file.read(len(ZIP_START))
        if not zipfile.is_zipfile(path):
            return (
                f"truncated: it ends after {size} bytes without its table of contents" if start == ZIP_START else None
            )
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        return f"damaged ({error}); restore it from a copy"
    return wrong and f"damaged: the checksum of its part {wrong} is wrong; restore it from a copy"


def not_finite(weights: Mapping[str, Any]) -> list[str]:
    """The names of the floating-point tensors that hold NaN or infinite values."""
    return [
        name
        for name, value in weights.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all()
    ]


def some_of(names: list[str]) -> str:
    """The first few names, and how many there are besides."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits. Raises OSError."""
    state = os.stat(path)  # noqa: PTH116
    return _file_digest(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=32)
def _file_digest(path: Path, inode: int, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
