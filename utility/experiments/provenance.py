"""run.json: which commands, data, checkpoint and versions an experiment comes from."""

import contextlib
import datetime
import json
import logging
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from mynah.utility.experiments.checkpoint import locate_checkpoint
from mynah.utility.experiments.download import is_url
from mynah.utility.experiments.folder import is_launched_process, write_json
from mynah.utility.experiments.integrity import file_digest
from mynah.utility.experiments.shipped import find_shipped

RUN_FILE = "run.json"
CLONE = Path(__file__).resolve().parents[2]
"""The folder of the clone; of an installed package, its own."""
PACKAGES = ("mynah", "torch", "torchaudio", "lightning", "numpy", "librosa", "soundfile", "timm")

log = logging.getLogger("mynah")


def library_versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that results depend on, by name."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def checkpoint_origin(source: str | Path | None, upstream: str | None = None) -> dict[str, str] | None:
    """Which file a checkpoint came from: as given, its path and its SHA-256; of what is no file, the name alone.

    upstream: whose weights they are, for the names of those that come with Mynah. Raises UserError as
    `locate_checkpoint` does.
    """
    if source is None:
        return None
    if upstream is not None and (shipped := find_shipped(source, upstream)):
        return {"given": str(source), "file": str(shipped), "sha256": file_digest(shipped)}
    if not is_url(source) and not Path(source).expanduser().exists():
        return {"given": str(source)}
    folder = Path(source).expanduser() if not is_url(source) else None
    if folder is not None and (folder / "config.json").is_file():  # a model of Hugging Face
        file = next((folder / name for name in HUB_WEIGHTS if (folder / name).is_file()), folder / "config.json")
    else:
        file = locate_checkpoint(source)
    return {"given": str(source), "file": str(file.absolute()), "sha256": file_digest(file)}


HUB_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


class RunRecord:
    """An experiment's run.json; each start of its program adds an entry to "legs"."""

    def __init__(self, folder: Path):
        self.path = folder / RUN_FILE
        self.content: dict[str, Any] = {}

    def begin(self, step: int, **facts: Any) -> None:
        """Write down that a leg begins at `step`; facts: what holds for the whole run, such as upstream and data."""
        if is_launched_process():
            return
        self.started, self.cpu_before = time.monotonic(), _cpu_seconds()
        legs = self._read().get("legs", [])
        leg = {
            "command": shlex.join(sys.argv),
            "folder": str(Path.cwd()),
            "started": _now(),
            "ended": None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "commit": current_commit(),
            "versions": library_versions(),
            "first_step": step,
        }
        self.content = {**facts, "legs": [*legs, leg]}
        write_json(self.content, self.path)

    @contextlib.contextmanager
    def completed(self, step: Callable[[], int], last_step: Callable[[], int]) -> Iterator[None]:
        """Complete the leg's entry when what is inside ends, in whatever way; step: reached, last_step: asked for."""
        ended_well = False
        try:
            yield
            ended_well = True
        finally:
            if self.content:
                self.content["legs"][-1] |= {
                    "ended": _now(),
                    "last_step": step(),
                    "finished": ended_well and step() >= last_step(),
                    "wall_seconds": round(time.monotonic() - self.started, 1),
                    "cpu_seconds": round(_cpu_seconds() - self.cpu_before, 1),
                }
                write_json(self.content, self.path)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not isinstance(content.get("legs"), list):
                raise ValueError("no list of legs")
            return content
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s: cannot be read (%s); it is begun anew", self.path, error)
            return {}


def current_commit() -> str | None:
    """The commit of this clone, with " (modified)" where files differ from it; None outside of a clone."""
    if not (CLONE / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + (" (modified)" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    # Without optional locks: a run that is killed meanwhile must not leave one in the user's repository.
    command = ["git", "--no-optional-locks", "-C", str(CLONE), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _cpu_seconds() -> float:
    """Of this process, all its threads and the children that have ended."""
    return sum(os.times()[:4])
