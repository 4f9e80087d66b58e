"""An experiment's folder: found, made, resumed, and never overwritten silently."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utility.checkpoint import locate_checkpoint
from utility.errors import UserError


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
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"


def open_experiment(
    root: Path, name: str | None, resume: str | None = None, auto_resume: bool = False
) -> Experiment:
    """Decide where a run writes.

    root: the folder of experiments (-p). name: -n. resume: a directory or checkpoint (-e). auto_resume: -a.
    Raises UserError without a name, for a name that exists and is not to be resumed, and for a resume that finds nothing.
    """
    if resume is not None:
        checkpoint = locate_checkpoint(resume)
        folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else root / (name or "")
        if name and folder != root / name and checkpoint.parent.name != "checkpoints":
            folder = root / name
        if not name and checkpoint.parent.name != "checkpoints":
            raise UserError(f"-e {resume}: the checkpoint lies in no experiment; name one with -n to go on in")
        return Experiment(folder, checkpoint)
    if not name:
        raise UserError("-n NAME is needed: the name of the experiment")
    folder = root / name
    if is_launched_process() or not _holds_anything(folder):
        return Experiment(folder, _last(folder) if auto_resume else None)
    if auto_resume:
        return Experiment(folder, _last(folder))
    raise UserError(
        f"experiment '{name}' exists already in {folder}; -a goes on with it, -n takes another name, or remove it"
    )


def is_launched_process() -> bool:
    """Whether another process of the same run started this one, and has opened the experiment already."""
    return int(os.environ.get("LOCAL_RANK", 0)) > 0


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write readable JSON, by a temporary name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


def _holds_anything(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def _last(folder: Path) -> Path | None:
    last = folder / "checkpoints" / "last.ckpt"
    return last if last.is_file() else None
