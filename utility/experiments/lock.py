"""One run at a time in an experiment's folder: a lock that ends with its process."""

import contextlib
import datetime
import errno
import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO

from mynah.utility.errors import UserError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

LOCK_FILE = "run.lock"
"""Says who holds or last held the lock. The lock itself is the system's, and ends with the process in any case."""

HELD = (errno.EACCES, errno.EAGAIN)
"""What the system answers where another process holds the lock."""
PATIENCE_SECONDS, PAUSE_SECONDS = 0.3, 0.02
"""A lock that is held no longer than this is only being looked at, by `is_locked` of another process."""

log = logging.getLogger("mynah")

_held: dict[Path, IO[str]] = {}
"""The locks of this process. A process does not exclude itself by POSIX locks, so these are looked up as well."""


def lock_run(folder: Path) -> None:
    """Hold the lock of an experiment's folder, which exists, until `unlock_run` or the end of the process.

    A POSIX record lock, which worker processes do not inherit. Where the file system has no locks, a warning says so.
    Raises UserError, naming host, process and time, where another run holds it.
    """
    path = folder.resolve() / LOCK_FILE
    if fcntl is None or path in _held:
        return
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to: {error.strerror}; -p gives another place") from error
    try:
        _take(file, PATIENCE_SECONDS)
    except OSError as error:
        holder = _describe(file)
        file.close()
        if error.errno not in HELD:
            log.warning("%s: cannot be locked (%s); take care that no two runs write to it", folder, error.strerror)
            return
        raise UserError(
            f"experiment '{folder.name}' in {folder} is being written by {holder}; wait for it or stop it, or take "
            "another name with -n"
        ) from error
    _held[path] = file
    _sign(file)


def unlock_run(folder: Path) -> None:
    """Give the lock back, if this process holds it."""
    if file := _held.pop(folder.resolve() / LOCK_FILE, None):
        file.close()


def is_locked(folder: Path) -> bool:
    """Whether another process holds the lock of a folder. For a process that holds none of its own there: closing
    the file would give that back.

    The lock is taken for a moment, as Python has no portable way to ask alone; `lock_run` has patience with that.
    """
    path = folder.resolve() / LOCK_FILE
    if fcntl is None or path in _held:
        return False
    with contextlib.suppress(OSError), path.open("r+", encoding="utf-8") as file:
        try:
            _take(file, 0.0)
        except OSError as error:
            return error.errno in HELD
    return False


def _take(file: IO[str], patience_seconds: float) -> None:
    """Raises OSError, with an error of HELD where another process has held the lock all the time."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD or time.monotonic() >= deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def _sign(file: IO[str]) -> None:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now}) + "\n")
        file.flush()


def _describe(file: IO[str]) -> str:
    try:
        file.seek(0)
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
