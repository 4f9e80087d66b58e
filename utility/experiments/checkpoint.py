"""Self-describing checkpoints: reading them, and refusing wrong ones with one clear message.

A checkpoint is what `torch.save` writes of plain tensors and dicts, so that `torch.load(weights_only=True)` reads
it. Beside Lightning's entries (state_dict, optimizer_states, loops, ...) it holds the metadata under "mynah":

    {"format_version": 1, "kind": "pretrain" or "downstream", "upstream": name, "config": the upstream's full
     configuration, "step": optimizer steps done, ...}
"""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from mynah.utility.errors import UserError

FORMAT_VERSION = 1
METADATA = "mynah"
CARD_KEYS = {"format_version", "kind", "upstream", "config", "step"}
KINDS = {"pretrain": "an upstream checkpoint of run_pretrain.py", "downstream": "a task of run_downstream.py"}
SHOWN = 3


def make_metadata(kind: str, upstream: str, config: dict[str, Any], step: int, **more: Any) -> dict[str, Any]:
    """What a checkpoint says of itself; config and more are plain values, step counts optimizer steps."""
    metadata = {"format_version": FORMAT_VERSION, "kind": kind, "upstream": upstream, "config": config, "step": step}
    return {**metadata, **more}


def read_checkpoint(source: str | Path, kind: str, upstream: str | None = None) -> dict[str, Any]:
    """Read a checkpoint file, an experiment's directory, or a URL, to the CPU.

    kind: "pretrain" or "downstream". upstream: the name that its metadata must carry, if given.
    Raises UserError, naming the file and what was expected, for anything else.
    """
    path = locate_checkpoint(source)
    checkpoint = _load(path)
    metadata = checkpoint.get(METADATA) if isinstance(checkpoint, dict) else None
    expected = KINDS[kind] + (f" for upstream '{upstream}'" if upstream else "")
    if not isinstance(metadata, dict) or "state_dict" not in checkpoint or not metadata.keys() >= CARD_KEYS:
        raise UserError(f"{path}: a torch file, but not a checkpoint of Mynah; expected {expected}")
    if metadata["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{path}: written in checkpoint format {metadata['format_version']}, this version reads up to "
            f"{FORMAT_VERSION}; update the code"
        )
    if metadata["kind"] != kind:
        raise UserError(f"{path}: holds {KINDS.get(metadata['kind'], metadata['kind'])}; expected {expected}")
    if upstream is not None and metadata["upstream"] != upstream:
        raise UserError(
            f"{path}: holds upstream '{metadata['upstream']}', but '{upstream}' was asked for; "
            f"give -u {metadata['upstream']}, or a checkpoint of '{upstream}'"
        )
    return checkpoint


def locate_checkpoint(source: str | Path) -> Path:
    """A file; the newest state of an experiment's directory; or a URL, downloaded once to torch's hub folder."""
    if urlparse(str(source)).scheme in ("http", "https"):
        return _download(str(source))
    path = Path(source).expanduser()
    if path.is_dir():
        found = path / "checkpoints" / "last.ckpt"
        if not found.is_file():
            raise UserError(f"{path}: no checkpoints/last.ckpt in this directory; give an experiment or a .ckpt file")
        return found
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a .ckpt file, an experiment's directory or a URL")
    return path


def load_weights(module: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Load every weight of `module`, no more and no fewer; UserError with the differences otherwise."""
    own = module.state_dict()
    problems = [
        *_listed("missing", sorted(own.keys() - weights.keys())),
        *_listed("not expected", sorted(weights.keys() - own.keys())),
        *_listed(
            "of another shape",
            [
                f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
                for key in sorted(own.keys() & weights.keys())
                if weights[key].shape != own[key].shape
            ],
        ),
    ]
    if problems:
        raise UserError(
            f"{source}: its weights do not fit the model ({'; '.join(problems)}); was another model configuration "
            "given with -g, -t or overrides?"
        )
    module.load_state_dict(weights, strict=True)


def select_weights(state_dict: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """`torch.save` to a temporary name beside `path`, flushed to the disk and then renamed.

    A crash or a full disk leaves the earlier file under `path` as it was. What a killed process leaves under
    the temporary name, `remove_temporary` removes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        raise UserError(
            f"{path}: could not be saved ({error}); is the disk full? Earlier checkpoints are as they were"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary(folder: Path) -> None:
    """Remove what processes killed while saving have left in a folder of checkpoints."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except PermissionError as error:
        raise UserError(f"{path}: permission denied") from error
    except Exception as error:  # bytes that are no checkpoint make the unpickler fail in many ways
        size = path.stat().st_size
        raise UserError(
            f"{path}: not a readable checkpoint ({size} bytes: truncated, or another kind of file); expected one "
            "written by run_pretrain.py or run_downstream.py"
        ) from error


def _download(url: str) -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]  # two sites may use the same file name
    path = folder / f"{digest}-{Path(urlparse(url).path).name}"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:
            raise UserError(f"{url}: could not be downloaded ({error})") from error
    return path


def _listed(what: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return [f"{len(keys)} {what}: {', '.join(keys[:SHOWN])}{more}"]
