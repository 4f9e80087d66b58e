"""An experiment's folder: found, made, resumed, and never overwritten silently."""

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import BEST, LAST, locate_checkpoint, newest_state
from mynah.utility.experiments.exported import is_exported
from mynah.utility.experiments.lock import LOCK_FILE, lock_run, unlock_run
from mynah.utility.storage import remove_temporary, write_atomically

RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID")
"""Environment variables of Lightning, torchrun and SLURM. One of them is above 0 in every process but the first."""

SKIPPED_FILES = "skipped_files.txt"
"""The list of files that a run could not use. A run that stops because of too many writes nothing else."""

MAX_NAME_BYTES = 150
"""Of an experiment's name, so that the names of its files stay below what file systems take."""


@dataclass(frozen=True)
class Experiment:
    """Where a run writes, and the checkpoint it goes on from, if any."""

    folder: Path
    resume_from: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / LAST

    @property
    def best(self) -> Path:
        return self.checkpoints / BEST

    @property
    def skipped_files(self) -> Path:
        """Where files that cannot be used are named."""
        return self.folder / SKIPPED_FILES

    def lock(self) -> None:
        """Keep other runs out of the folder, which exists, until `unlock`; raises UserError where one is in it.

        What killed processes have left half written there is removed.
        """
        if is_launched_process():
            return
        lock_run(self.folder)
        remove_temporary(self.folder)

    def unlock(self) -> None:
        """Let other runs in; nothing where it was not locked."""
        unlock_run(self.folder)

    def begin(self) -> None:
        """Make the folder and lock it. Raises UserError where that is not possible, or another run was faster."""
        make_writable(self.folder, "-p")
        self.lock()
        if self.resume_from is None and any(self.checkpoints.glob("*.ckpt")):
            raise UserError(
                f"experiment '{self.folder.name}' was begun by another process just now; -n takes another name"
            )


def open_experiment(root: Path, name: str | None, resume: str | None = None, auto_resume: bool = False) -> Experiment:
    """Decide where a run writes.

    root: the folder of experiments (-p). name: -n. resume: a directory or checkpoint (-e). auto_resume: -a.
    Raises UserError without a name, for a name that exists and is not to be resumed, for a resume that finds nothing,
    and for a name that is not the resumed experiment's.
    """
    if resume is not None:
        return _resume(root, name, resume)
    if not name:
        raise UserError("-n NAME is needed: the name of the experiment")
    _check_name(name)
    folder = root / name
    if not auto_resume:
        _refuse_existing(folder, "-a goes on with it")
    return Experiment(folder, newest_state(folder / "checkpoints") if auto_resume else None)


def make_writable(folder: Path, flag: str) -> None:
    """Make the folder if need be. Raises UserError where that or writing into it is not possible.

    flag: that of the command line which gives another place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to: {error.strerror}; {flag} gives another place") from error


def is_launched_process() -> bool:
    """Whether this is not the first process of its run: the first one opens the experiment for all."""
    for name in RANKS:
        value = os.environ.get(name) or "0"
        if not value.isdecimal():
            raise UserError(f"the environment variable {name} is {value!r}; expected a number, or unset it")
        if int(value) > 0:
            return True
    return False


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write readable JSON, whole or not at all. Raises UserError where that is not possible."""
    text = json.dumps(content, indent=2) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(
            f"{path}: could not be written ({error.strerror or error}); free space there, or see to the permissions, "
            "and give the same command again, with -a"
        ) from error


def _resume(root: Path, name: str | None, resume: str) -> Experiment:
    """Go on in the experiment that the checkpoint lies in, or with a stray checkpoint in a new one called `name`."""
    if name is not None:
        _check_name(name)
    checkpoint = locate_checkpoint(resume)
    if is_exported(checkpoint):
        raise UserError(
            f"-e {resume}: exported weights, without the state of a run that could be gone on with; start a new run "
            "with them, of pretraining by --init-from, of a task by -k"
        )
    if checkpoint.parent.name == "checkpoints":
        folder = checkpoint.parent.parent
        if name and (root / name).resolve() != folder.resolve():
            raise UserError(
                f"-e {resume} goes on in {folder}, not in -n {name}; leave -n out, or start a new run from these "
                "weights with --init-from"
            )
        return Experiment(folder, checkpoint)
    if not name:
        raise UserError(f"-e {resume}: the checkpoint lies in no experiment; name one with -n to go on in")
    _refuse_existing(root / name, f"-e {root / name} goes on with it")
    return Experiment(root / name, checkpoint)


def _refuse_existing(folder: Path, advice: str) -> None:
    """Raise UserError if the folder holds anything, but for what a run leaves that found too many bad files."""
    if is_launched_process() or not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file, not an experiment's folder; -n takes another name, -p another place")
    if any(path.name not in (SKIPPED_FILES, LOCK_FILE) for path in folder.iterdir()):
        raise UserError(
            f"experiment '{folder.name}' exists already in {folder}; {advice}, -n takes another name, or remove it"
        )


def _check_name(name: str) -> None:
    """Raise UserError for a name that is a path, or that shells, file systems or people would misread."""
    if Path(name).name != name or name == "..":
        raise UserError(f"-n {name}: expected a name, not a path; -p gives the folder of the experiments")
    if not name.isprintable() or name != name.strip() or re.match(r"[.-]", name):
        raise UserError(
            f"-n {name!r}: expected a name of printable characters that begins with no dot, dash or space and ends "
            "with no space"
        )
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise UserError(f"-n {name[:20]}...: has {len(name)} characters; expected at most {MAX_NAME_BYTES} bytes")
