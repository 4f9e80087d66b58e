"""Files of exported weights: what features need of a checkpoint, in half precision, as safetensors.

The metadata of such a file are texts of JSON:

    mynah       what checkpoints have under this name: format version, kind, upstream, config and step
    provenance  where the weights come from: "layout", the version of this list, and what the exporter knows
    digest      SHA-256 of the tensors and of the two texts

Numbers are float32 again once they are read.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.utility.data.media_files import why_unopenable
from mynah.utility.errors import UserError
from mynah.utility.experiments.shipped import SUFFIX

LAYOUT = 1
METADATA_KEY, PROVENANCE, DIGEST = "mynah", "provenance", "digest"


@dataclass(frozen=True)
class Exported:
    """What such a file holds."""

    weights: dict[str, Tensor]
    """By the names that checkpoints have, float32."""
    metadata: Any
    """A mapping, as `make_metadata` makes it; whoever reads the file checks it."""
    provenance: dict[str, Any]


def is_exported(path: Path) -> bool:
    """Whether a file is to be read as one of these: by its ending."""
    return path.suffix == SUFFIX


def encode_export(weights: Mapping[str, Tensor], exported: Exported) -> bytes:
    """The bytes of a file: `weights` in the types that they have, with the metadata and provenance of `exported`."""
    from safetensors.torch import save

    stored = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    texts = {
        METADATA_KEY: json.dumps(exported.metadata),
        PROVENANCE: json.dumps({"layout": LAYOUT, **exported.provenance}),
    }
    return save(stored, {**texts, DIGEST: _digest(stored, texts)})


def read_exported(path: Path) -> Exported:
    """What the file holds, on the CPU.

    Raises UserError, naming the file, where it is damaged, was changed, or is a safetensors file of something else.
    """
    if reason := why_unopenable(path):
        raise UserError(f"{path}: {reason}")
    texts, stored = _read(path)
    if not {METADATA_KEY, PROVENANCE, DIGEST} <= texts.keys():
        raise UserError(f"{path}: safetensors of something else; expected a file that `mynah export` has written")
    if texts[DIGEST] != _digest(stored, texts):
        raise UserError(
            f"{path}: damaged or changed: its contents do not have the SHA-256 that it names; restore it from a copy"
        )
    try:
        metadata, provenance = json.loads(texts[METADATA_KEY]), json.loads(texts[PROVENANCE])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its metadata cannot be read ({error}); restore it from a copy") from error
    layout = provenance.get("layout") if isinstance(provenance, dict) else None
    if type(layout) is not int or layout > LAYOUT:
        raise UserError(f"{path}: written in layout {layout}; this version reads up to {LAYOUT}; update the code")
    weights = {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
    return Exported(weights, metadata, provenance)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise UserError(f"{path}: reading it needs the package safetensors; pip install safetensors") from error
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # bytes that are something else make the reader fail in many ways
        size = path.stat().st_size
        raise UserError(
            f"{path}: truncated, damaged or no safetensors file ({size} bytes: {error}); restore it from a copy"
        ) from error


def _digest(stored: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for key in (METADATA_KEY, PROVENANCE):
        digest.update(f"{key}\t{texts[key]}\n".encode())
    for name, value in sorted(stored.items()):
        digest.update(f"{name}\t{value.dtype}\t{tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
