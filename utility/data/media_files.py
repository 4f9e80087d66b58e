"""Audio and video files as files: finding them below a folder, and saying why one does not open."""

import errno
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from mynah.utility.errors import UserError


class UnreadableMedia(Exception):
    """A file that cannot be used; `path` and `reason` say which and why."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(path, reason)
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


def find_files(root: Path, suffixes: Sequence[str], kind: str) -> list[Path]:
    """All files below `root` with one of the (lower-case) suffixes, sorted, without hidden ones; links are followed.

    kind: what they are, for the messages ("videos"). Raises UserError where `root` is missing, is no folder, holds
    none, or it or a folder in it may not be read.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"folder not found: {root}; check the path")
    if not root.is_dir():
        raise UserError(f"not a folder: {root}; give the folder that holds the {kind}")
    found = []
    visited = set()
    for folder, subfolders, names in os.walk(root, onerror=_raise_unlistable, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # reached again through a link
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        found += [
            os.path.join(folder, name)  # noqa: PTH118 (corpora have hundreds of thousands of files)
            for name in names
            if name.lower().endswith(tuple(suffixes)) and not name.startswith(".")
        ]
    if not found:
        raise UserError(f"no {kind} below {root}; looked for {', '.join(suffixes)}")
    return [Path(path) for path in sorted(found)]


def printable(text: str) -> str:
    """A file's name as one line of text: line breaks, control characters and bytes that are not UTF-8 are escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", errors="surrogatepass").decode()
        for each in text
    )


def file_state(path: str) -> str | None:
    """A name for what a file now holds: its true place, bytes, time of change; None where there is no file."""
    folder, name = os.path.split(path)
    try:
        state = os.stat(path)  # noqa: PTH116 (asked for every item of every batch)
    except OSError:
        return None
    return f"{_true_folder(folder)}{os.sep}{name}\t{state.st_size}\t{state.st_mtime_ns}"


@lru_cache(maxsize=65536)
def _true_folder(folder: str) -> str:
    """Without links: one of them may lead to another corpus tomorrow."""
    return os.path.realpath(folder)


def why_unopenable(path: Path) -> str | None:
    """Why the file system does not let a file be read, or that it is empty; None where it lies elsewhere.

    A pipe or device counts as unreadable: opening one may wait for ever.
    """
    try:
        if path.exists() and not path.is_file():
            return "a folder, not a file" if path.is_dir() else "not a regular file"
        with path.open("rb") as file:
            return None if file.read(1) else "empty: it has no bytes"
    except FileNotFoundError:
        return "a link to a missing file" if path.is_symlink() else "missing"
    except PermissionError:
        return "permission denied"
    except OSError as reason:
        return os.strerror(reason.errno or errno.EIO)


def _raise_unlistable(error: OSError) -> None:
    reason = "permission denied" if isinstance(error, PermissionError) else error.strerror
    raise UserError(f"cannot list folder {error.filename}: {reason}; mend that or give another folder") from error
