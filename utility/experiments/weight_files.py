"""Files of weights that others have written: torch files and safetensors."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import locate_checkpoint
from mynah.utility.experiments.download import is_url
from mynah.utility.experiments.integrity import not_finite, some_of, why_damaged

WRAPPERS = ("state_dict", "model")
"""Entries under which training programs keep the weights beside other things."""


def read_weights(source: str | Path, expected: str) -> dict[str, Tensor]:
    """The weights by name in a torch file or a .safetensors file, a path or a URL, on the CPU.

    Weights that lie under "state_dict" or "model", as training programs write them, are found there. expected: what
    the file should be, for the message. Raises UserError, naming the file, for anything else.
    """
    path = locate_checkpoint(source) if is_url(source) else Path(source).expanduser()
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "no such file"
        raise UserError(f"{source}: {what}; expected {expected}")
    content = _read(path, expected)
    wrapper = next(
        (name for name in WRAPPERS if isinstance(content, dict) and isinstance(content.get(name), dict)), ""
    )
    weights = content[wrapper] if wrapper else content
    if not isinstance(weights, dict) or not weights or not all(isinstance(one, Tensor) for one in weights.values()):
        raise UserError(f"{path}: holds something else than weights by name; expected {expected}")
    if wrong := not_finite(weights):
        raise UserError(f"{path}: holds weights that are NaN or infinite ({some_of(wrong)}); expected {expected}")
    return dict(weights)


def load_tensors(path: Path) -> Any:
    """What a .safetensors or torch file holds, on the CPU; raises whatever its reader does where that fails."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # a torch file needs no such package

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _read(path: Path, expected: str) -> Any:
    if reason := why_damaged(path):
        raise UserError(f"{path}: {reason}; expected {expected}")
    try:
        return load_tensors(path)
    except Exception as error:  # bytes that are something else make the readers fail in many ways
        foreign = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        if foreign:
            raise UserError(
                f"{path}: holds {foreign[1]} beside weights; such Python objects are not loaded because that may run "
                "code; where you trust the file, save its weights alone into another"
            ) from error
        size = path.stat().st_size
        raise UserError(
            f"{path}: not readable ({size} bytes of another kind of file); expected {expected}"
        ) from error
