"""The cache folder, and writing of files that is whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

TEMPORARY = ".tmp"
"""Ends the names of files that are being written; what a killed process leaves of them may be removed."""


def cache_dir() -> Path:
    """The user's cache folder: $MYNAH_CACHE, else $XDG_CACHE_HOME/mynah, else ~/.cache/mynah.

    Nothing is created here; each writer makes its own subfolder.
    """
    if own := os.environ.get("MYNAH_CACHE"):
        return Path(own).expanduser().absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser().absolute() / "mynah"
    return Path.home() / ".cache" / "mynah"


def readable_size(count: int | float) -> str:
    """Of so many bytes: "1.25 GiB", or below one "34.0 MiB"."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` at the end of the `with` block; makes the folder.

    What was written is on the disk before the name changes, and the changed name is on the disk at the end. Where
    anything fails, the earlier file stays. previous: the name that the earlier file keeps beside the new one.
    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            _keep_as(path, previous)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all, and make its folder. Raises OSError."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", errors="surrogateescape"))


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process or thread uses."""
    return path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes have left half written below a folder that no living process writes to."""
    for path in list(folder.rglob(f".*{TEMPORARY}")):
        if path.is_dir():
            with contextlib.suppress(OSError):
                shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_locked(folder: Path) -> Iterator[bool]:
    """Wait for the lock of a folder, held in the `with` block; False where the system has no such locks.

    It belongs to the block rather than to the process, and ends with it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _keep_as(path: Path, previous: Path) -> None:
    """Give a file a second name in place of another file; a move where the file system has no hard links."""
    link = temporary_name(previous)
    try:
        os.link(path, link)
        link.replace(previous)
    except OSError:
        path.replace(previous)
    finally:
        link.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
