"""Lengths of many audio files from their headers, in parallel, remembered from run to run."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mynah.utility.audio.files import UnreadableAudio, audio_info
from mynah.utility.storage import cache_dir, write_atomically

VERSION = 1
MAX_COUNT = 2**62  # of bytes, nanoseconds or samples; what numpy can count
NUM_THREADS = 16  # more than cores: over a network, opening files is waiting
FILES_PER_TASK = 32

Entry = list[int]
"""[bytes, time of change in ns, samples at 16 kHz]"""

log = logging.getLogger("mynah")


def measure_lengths(
    root: Path, paths: Sequence[str], *, title: str, progress: bool = True
) -> tuple[dict[str, int], dict[str, str]]:
    """{path: samples at 16 kHz} of the readable files, {path: reason} of the others, each in the order given.

    root: the folder or manifest that the paths come from; its lengths have a cache file of their own. A file is read
    again when its size or time of change differs from the remembered ones, and every time while it is unreadable.
    """
    remembered = _load(root)
    lengths, problems, entries = {}, {}, {}
    tasks = [paths[first : first + FILES_PER_TASK] for first in range(0, len(paths), FILES_PER_TASK)]

    def measure_some(task: Sequence[str]) -> list[tuple[str, str, Entry | str]]:
        keys = [_key(root, path) for path in task]
        return [(path, key, _measure(path, remembered.get(key))) for path, key in zip(task, keys, strict=True)]

    bar = tqdm(total=len(paths), desc=title, unit=" files", disable=None if progress else True, leave=False)
    with bar, ThreadPoolExecutor(NUM_THREADS) as pool:
        for results in pool.map(measure_some, tasks):
            for path, key, result in results:
                if isinstance(result, str):
                    problems[path] = result
                else:
                    entries[key] = result
                    lengths[path] = result[2]
            bar.update(len(results))
    if entries != remembered:
        _save(root, entries)
    return lengths, problems


def cache_file(root: Path) -> Path:
    """Where the lengths of a folder or manifest are kept; the place of the data decides, not how it was spelled."""
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]
    return cache_dir() / "lengths" / f"{name}.json"


def _measure(path: str, remembered: Entry | None) -> Entry | str:
    """The file's entry, or why it cannot be read."""
    try:
        state = os.stat(path)  # noqa: PTH116 (a warm scan is little else, for hundreds of thousands of files)
        if remembered is not None and remembered[:2] == [state.st_size, state.st_mtime_ns]:
            return remembered
        return [state.st_size, state.st_mtime_ns, audio_info(path).samples]
    except UnreadableAudio as error:
        return error.reason
    except FileNotFoundError:
        return "missing"
    except ValueError:  # of os.stat
        return "its name holds a character of value 0"
    except OSError as error:
        return "permission denied" if isinstance(error, PermissionError) else str(error.strerror)


def _key(root: Path, path: str) -> str:
    """The path below the root, so that a cache holds whichever way its folder was spelled."""
    prefix = f"{root}{os.sep}"
    return path[len(prefix) :] if path.startswith(prefix) else path


def _load(root: Path) -> dict[str, Entry]:
    path = cache_file(root)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return {}
        files = content["files"]
        if not all(len(entry) == 3 and all(map(_is_count, entry)) for entry in files.values()):
            raise ValueError("an entry is not three numbers that can be")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("ignoring the length cache %s: %s; the headers are read again", path, error)
        return {}
    return files


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COUNT


def _save(root: Path, entries: dict[str, Entry]) -> None:
    path = cache_file(root)
    try:
        write_atomically(path, json.dumps({"version": VERSION, "root": str(root), "files": entries}))
    except OSError as error:
        log.warning("lengths are not remembered: cannot write %s: %s", path, error.strerror)
