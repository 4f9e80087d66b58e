"""Decoded clips kept as files, so that later passes over the data need not decode them again."""

import hashlib
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mynah.utility.video.files import UnreadableVideo, read_clip

VERSION = 1  # one up whenever read_clip takes other frames or other pixels of the same file

MAKING = ".making-"
ABANDONED_SECONDS = 24 * 3600.0

log = logging.getLogger("mynah")


class FrameCache:
    """read_clip with a memory on the disk: `read(path, num_frames, frame_size)` gives the same, decoded once.

    folder: made when needed; may be shared by processes and experiments, and emptied at any time. A clip takes
    num_frames * 3 * height * width bytes in it. A file's size and time of change, its place and the request decide
    which entry is its own. Where the folder cannot be written, a warning says so once and reading goes on without.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._writable = True
        self._remove_abandoned()

    def read(self, path: str | os.PathLike, num_frames: int, frame_size: int) -> torch.Tensor:
        """(num_frames, 3, H, W) uint8, the shorter side of `frame_size` pixels. Raises UnreadableVideo."""
        entry = self.entry(path, num_frames, frame_size)
        clip = _load(entry, num_frames, frame_size)
        if clip is None:
            clip = read_clip(path, num_frames, frame_size)
            self._keep(entry, clip)
        return clip

    def entry(self, path: str | os.PathLike, num_frames: int, frame_size: int) -> Path:
        """Where the clip of this request is kept, whether or not it is. Raises UnreadableVideo for a missing file."""
        path = Path(path).absolute()
        try:
            state = path.stat()
        except OSError as error:
            raise UnreadableVideo(
                path, "missing" if isinstance(error, FileNotFoundError) else error.strerror
            ) from None
        key = f"{VERSION}/{state.st_size}/{state.st_mtime_ns}/{num_frames}/{frame_size}/{path}"
        name = hashlib.sha256(os.fsencode(key)).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.npy"

    def _remove_abandoned(self) -> None:
        """What processes left half made when they were killed."""
        for temporary_folder in self.folder.glob(f"*/{MAKING}*"):
            try:
                if time.time() - temporary_folder.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(temporary_folder)
            except OSError:  # another process was faster
                continue

    def _keep(self, entry: Path, clip: torch.Tensor) -> None:
        if not self._writable:
            return
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=entry.parent, prefix=MAKING) as temporary_folder:
                made = Path(temporary_folder) / entry.name
                np.save(made, clip.numpy())
                made.replace(entry)
        except OSError as error:
            self._writable = False
            log.warning("decoded frames are not kept: cannot write %s: %s", entry, error.strerror or error)


def _load(entry: Path, num_frames: int, frame_size: int) -> torch.Tensor | None:
    """The entry; None where there is none, or what is there is not a clip of this request."""
    try:
        clip = np.load(entry, mmap_mode="r")  # a header that tells of more than is there fails here
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy reads a header as Python source, which fails in many ways
        log.warning("decoding again, as a kept clip is damaged: %s: %s", entry, error)
        return None
    shape = clip.shape if isinstance(clip, np.ndarray) else ()
    if len(shape) != 4 or shape[:2] != (num_frames, 3) or min(shape[2:]) != frame_size or clip.dtype != np.uint8:
        log.warning("decoding again, as a kept clip is not what it should be: %s", entry)
        return None
    return torch.from_numpy(np.array(clip))
