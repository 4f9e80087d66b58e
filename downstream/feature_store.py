"""Features on disk: safetensors files of many signals' states, a folder for each kind of features.

    $MYNAH_CACHE/features/KEY/about.json           what they are features of; its time tells of their last use
                             /NUMBER.safetensors   tensors by name; a checksum of each in the file's metadata

Every process writes files of its own, whole or not at all, and never changes one: so there is no lock, and no index
but the one that every safetensors file begins with, which cannot disagree with what it tells of.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import time
import zlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mynah.utility.storage import TEMPORARY, cache_dir, readable_size, replacing, write_atomically

SHARD_BYTES = 256 * 2**20
"""A file is written when so much has come together,"""
FLUSH_SECONDS = 120.0
"""or when so long ago the last one was: what a killed run loses."""
REFRESH_SECONDS = 15.0
"""How often a process looks for files that others have written."""
RESERVE = 10 * 2**30
"""Bytes that are left free on the disk, or a tenth of it where that is less."""
ABANDONED_SECONDS = 24 * 3600.0
"""Half-written files so old are removed, and features that have not been used for so long make room."""
TOUCH_SECONDS = 3600.0
"""How often a process that reads features says that they are in use."""

KEY = re.compile("[0-9a-f]{32}")
SUFFIX = ".safetensors"
ABOUT = "about.json"
CHECKSUMS = "crc32"

log = logging.getLogger("mynah")


def features_dir() -> Path:
    """The folder of all features in the user's cache folder."""
    return cache_dir() / "features"


class FeatureStore:
    """The tensors in the folder of one key, those that other processes write meanwhile too.

    about: plain facts, written into the folder. limit: bytes that everything beside the folder and in it may take.
    Where something cannot be written, a warning says so once, and what comes then is not kept.
    """

    def __init__(self, folder: Path, about: dict[str, Any], limit: int):
        self.folder, self.about, self.limit = folder, about, limit
        self._files: dict[str, Any] = {}
        """By name, those that were opened; None for those that are damaged."""
        self._places: dict[str, tuple[str, int]] = {}
        """(file, checksum) of each tensor."""
        self._checked: set[str] = set()
        self._waiting: dict[str, Tensor] = {}
        self._waiting_bytes = 0
        self._is_closed = False
        self._flushed = self._touched = time.monotonic()
        self._remove_abandoned()
        self._describe()
        self._refresh()

    def __len__(self) -> int:
        return len(self._places) + len(self._waiting)

    def __contains__(self, name: str) -> bool:
        """Whether `get` will give this tensor, now and later; its checksum is compared when it is first asked for."""
        if time.monotonic() - self._touched > TOUCH_SECONDS:
            self._touch()
        if name in self._checked or name in self._waiting:
            return True
        if name not in self._places and time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self._refresh()
        if name in self._places:
            file, checksum = self._places[name]
            if checksum_of(self._files[file].get_tensor(name)) == checksum:
                self._checked.add(name)
                return True
            self._drop(file, f"the checksum of {name} is wrong")
        return False

    def get(self, name: str) -> Tensor | None:
        """The tensor of that name, on the CPU, not to be changed; None where there is none."""
        if name not in self:
            return None
        if name in self._waiting:
            return self._waiting[name]
        return self._files[self._places[name][0]].get_tensor(name)

    def add(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor on the CPU, if there is room; it is written together with others."""
        if self._is_closed:
            return
        self._waiting[name] = tensor
        self._waiting_bytes += tensor.nbytes
        if self._waiting_bytes >= SHARD_BYTES or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits for that."""
        if self._is_closed or not self._waiting:
            return
        if self.make_room(self._waiting_bytes) < self._waiting_bytes:
            self._close(
                f"no room is left for them: features take up to features.disk_gib={self.limit / 2**30:g}, and a "
                "tenth of the disk, up to 10 GiB, stays free (`mynah features --empty` removes what is kept)"
            )
            return
        checksums = {name: checksum_of(tensor) for name, tensor in self._waiting.items()}
        path = self.folder / f"{secrets.token_hex(8)}{SUFFIX}"
        try:
            self._describe()
            with replacing(path) as file:
                file.write(save(self._waiting, {CHECKSUMS: json.dumps(checksums)}))
            self._places |= self._open(path)
        except (OSError, SafetensorError) as error:
            self._close(getattr(error, "strerror", None) or str(error))
            return
        self._checked.update(self._waiting)
        self._waiting, self._waiting_bytes = {}, 0
        self._flushed = time.monotonic()
        self._refresh()

    def room(self) -> int:
        """Bytes that may still be written."""
        try:
            folder = next(each for each in (self.folder, *self.folder.parents) if each.is_dir())
            disk = shutil.disk_usage(folder)
        except OSError:
            return 0
        free = disk.free - min(RESERVE, disk.total // 10)
        return max(0, min(self.limit - sum(map(bytes_of_folder, folders(self.folder.parent))), free))

    def make_room(self, needed: int) -> int:
        """Remove features of other kinds until there is room for so many bytes; `room` then.

        Those whose last use is longest ago go first, and none that was used within a day.
        """
        room = self.room()
        others = [(last_used(folder), folder) for folder in folders(self.folder.parent) if folder != self.folder]
        for used, folder in sorted(others):
            if room >= needed or time.time() - used < ABANDONED_SECONDS:
                break
            size = readable_size(bytes_of_folder(folder))
            try:
                shutil.rmtree(folder)
            except OSError:  # another user's, or another process was faster
                continue
            log.info("features: %s, %s that were last used on %s, made room", folder, size, time.ctime(used))
            room = self.room()
        return room

    def _close(self, reason: str) -> None:
        """Write nothing any more; what waits stays in memory, as `in` has already told of it."""
        self._is_closed = True
        log.warning("features: %s cannot be written: %s; the run goes on and keeps no more", self.folder, reason)

    def _refresh(self) -> None:
        """Open the files that others have written."""
        self._refreshed = time.monotonic()
        for path in sorted(self.folder.glob(f"[!.]*{SUFFIX}")):
            if path.name in self._files:
                continue
            try:
                self._places = self._open(path) | self._places  # what was found first stays
            except FileNotFoundError:  # emptied meanwhile
                continue
            except (OSError, SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
                self._drop(path.name, str(error))

    def _open(self, path: Path) -> dict[str, tuple[str, int]]:
        """The places of what is in a file. Raises many errors where it is damaged."""
        file = safe_open(path, "pt")
        checksums = json.loads((file.metadata() or {})[CHECKSUMS])
        places = {name: (path.name, int(checksums[name])) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        self._files[path.name] = file
        return places

    def _drop(self, file: str, reason: str) -> None:
        """Forget a damaged file, but for what has been found right in it, and remove it."""
        path = self.folder / file
        log.warning("features: %s is damaged (%s); what it held is computed anew", path, reason)
        self._files.setdefault(file, None)
        wrong = [name for name, place in self._places.items() if place[0] == file and name not in self._checked]
        for name in wrong:
            del self._places[name]
        with contextlib.suppress(OSError):
            path.unlink()

    def _describe(self) -> None:
        """about.json, of now: its time tells when the features were last used."""
        try:
            write_atomically(self.folder / ABOUT, json.dumps(self.about, indent=2, default=str) + "\n")
        except OSError:  # said when there is something to write
            return

    def _touch(self) -> None:
        """Tell other processes that these features are in use."""
        self._touched = time.monotonic()
        with contextlib.suppress(OSError):  # removed meanwhile
            os.utime(self.folder / ABOUT)

    def _remove_abandoned(self) -> None:
        """What processes left half written when they were killed."""
        for path in self.folder.glob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):  # another process was faster
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()


def checksum_of(tensor: Tensor) -> int:
    """CRC-32 of its bytes."""
    return zlib.crc32(tensor.contiguous().numpy())


def folders(root: Path) -> list[Path]:
    """Those of all keys; of anything else that lies beside them nothing is known."""
    found = root.iterdir() if root.is_dir() else ()
    return sorted(path for path in found if KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink())


def last_used(folder: Path) -> float:
    """When the features of a key were last used, in seconds since 1970; where there is no about.json, written."""
    for path in (folder / ABOUT, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return time.time()  # removed meanwhile


def count_tensors(folder: Path) -> int:
    """How many are in the folder of a key, twice those that two processes have written."""
    count = 0
    for path in folder.glob(f"[!.]*{SUFFIX}"):
        with contextlib.suppress(OSError, SafetensorError):
            count += len(safe_open(path, "pt").keys())
    return count


def bytes_of_folder(folder: Path) -> int:
    """What its files take."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # removed meanwhile
        total = sum(entry.stat().st_size for entry in entries if entry.is_file())
    return total
