"""Self-describing checkpoints: reading them, and refusing wrong ones with one clear message.

A checkpoint is what `torch.save` writes of plain tensors and dicts, so that `torch.load(weights_only=True)` reads
it. Beside Lightning's entries (state_dict, optimizer_states, loops, ...) it holds the metadata under "mynah":

    {"format_version": 1, "kind": "pretrain" or "downstream", "upstream": name, "config": the upstream's full
     configuration, "step": optimizer steps done, ...}
"""

import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from mynah.utility.errors import UserError
from mynah.utility.experiments.download import download, is_url
from mynah.utility.experiments.exported import is_exported, read_exported
from mynah.utility.experiments.integrity import not_finite, some_of, why_damaged
from mynah.utility.experiments.s3prl_files import advice_for
from mynah.utility.experiments.shipped import advice_on_name, find_shipped
from mynah.utility.storage import replacing

FORMAT_VERSION = 1
METADATA = "mynah"
CARD_TYPES = {"format_version": int, "kind": str, "upstream": str, "config": dict, "step": int}
TASK_TYPES = {"downstream": str, "task_config": dict, "task_state": dict, "fine_tune": bool}
"""What the metadata of a task holds besides."""
KINDS = {"pretrain": "an upstream checkpoint of run_pretrain.py", "downstream": "a task of run_downstream.py"}
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
"""In an experiment's folder `checkpoints`: the newest state, the one before it, and the best on held-out data."""

log = logging.getLogger("mynah")


def make_metadata(kind: str, upstream: str, config: dict[str, Any], step: int, **more: Any) -> dict[str, Any]:
    """What a checkpoint says of itself; config and more are plain values, step counts optimizer steps."""
    metadata = {"format_version": FORMAT_VERSION, "kind": kind, "upstream": upstream, "config": config, "step": step}
    return {**metadata, **more}


def read_checkpoint(source: str | Path, kind: str, upstream: str | None = None) -> dict[str, Any]:
    """Read a checkpoint file, an experiment's directory, a URL, or weights that come with Mynah, to the CPU.

    kind: "pretrain" or "downstream". upstream: the name that its metadata must carry, if given; then source may also
    be the name of weights of it (`shipped.py`). Exported weights (`exported.py`) are read as a checkpoint of
    pretraining that has nothing with which to go on.
    Raises UserError, naming the file and what was expected, for anything else.
    """
    path = locate_checkpoint(source, upstream if kind == "pretrain" else None)
    checkpoint = _as_checkpoint(path) if is_exported(path) else load_checkpoint(path)
    metadata = checkpoint.get(METADATA) if isinstance(checkpoint, dict) else None
    expected = KINDS[kind] + (f" for upstream '{upstream}'" if upstream else "")
    if not isinstance(metadata, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        what = advice_for(path) or "a torch file, but not a checkpoint of Mynah"
        raise UserError(f"{path}: {what}; expected {expected}")
    types = CARD_TYPES if metadata.get("kind") != "downstream" else CARD_TYPES | TASK_TYPES
    if wrong := [key for key, kind_of in types.items() if type(metadata.get(key)) is not kind_of]:
        raise UserError(
            f"{path}: its metadata lacks {', '.join(wrong)}, or has other types there; expected {expected}"
        )
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
    if wrong := not_finite(checkpoint["state_dict"]):
        raise UserError(
            f"{path}: holds weights that are NaN or infinite ({some_of(wrong)}); give an earlier checkpoint, from "
            "before the training went wrong"
        )
    return checkpoint


def locate_checkpoint(source: str | Path, upstream: str | None = None) -> Path:
    """A file; the newest undamaged state of an experiment's directory; or a URL, downloaded once.

    upstream: whose weights are asked for; then a name may mean some that come with Mynah (`shipped.py`), and goes
    before a file or directory that is called so. Raises UserError where there is none.
    """
    if not str(source).strip():
        raise UserError("the checkpoint is given as an empty text; give a file, an experiment, a URL or a name")
    if is_url(source):
        return download(str(source))
    if upstream is not None and (shipped := find_shipped(source, upstream)):
        return shipped
    path = Path(source).expanduser()
    if path.is_dir():
        if found := newest_state(path / "checkpoints"):
            return found
        if (path / "checkpoints").is_dir() or (path / "model_config.yaml").is_file() or (path / "run.json").is_file():
            raise UserError(
                f"{path}: this experiment ended before its first checkpoint; give the command that began it again, "
                "with -a"
            )
        raise UserError(f"{path}: no checkpoints/last.ckpt in this directory; give an experiment or a .ckpt file")
    if not path.exists():
        advice = advice_on_name(source, upstream)
        raise UserError(
            f"{path}: no such checkpoint{advice}; give a .ckpt file, an experiment's directory or a URL"
            f"{_neighbours(path)}"
        )
    return path


def _neighbours(path: Path) -> str:
    """What to say of the checkpoints that lie where one is missing; "" where there are none."""
    there = sorted(each.name for each in path.parent.glob("*.ckpt") if not each.name.startswith("."))
    return f"; in that folder lie {some_of(there)}" if there else ""


def newest_state(checkpoints: Path) -> Path | None:
    """Of the states in an experiment's folder of checkpoints the newest that is not damaged; None if there is none.

    A warning says which are passed over. Raises UserError where there are some and all are damaged.
    """
    problems = []
    for path in _states(checkpoints):
        if (reason := why_damaged(path)) is None:
            for problem in problems:
                log.warning("%s; going on from %s instead", problem, path.name)
            return path
        problems.append(f"{path}: {reason}")
    if problems:
        raise UserError("no checkpoint of the experiment can be read:\n" + "\n".join(problems))
    return None


def _states(checkpoints: Path) -> Iterator[Path]:
    """The states that are there, the newest first."""
    named = [checkpoints / name for name in (LAST, PREVIOUS)]
    yield from (path for path in named if path.exists())
    others = [path for path in checkpoints.glob("*.ckpt") if path not in named and not path.name.startswith(".")]
    yield from sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def load_weights(module: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Load every weight of `module`, no more and no fewer; UserError with the differences otherwise."""
    own = module.state_dict()
    problems = [
        *_listed("missing", sorted(own.keys() - weights.keys())),
        *_listed("not expected", sorted(map(str, weights.keys() - own.keys()))),
        *_listed("no tensors", sorted(key for key in own.keys() & weights.keys() if not _is_tensor(weights[key]))),
        *_listed(
            "of another shape",
            [
                f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
                for key in sorted(own.keys() & weights.keys())
                if _is_tensor(weights[key]) and weights[key].shape != own[key].shape
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
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if str(key).startswith(prefix)}


def without(state_dict: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """The entries that are under none of these prefixes."""
    return {key: value for key, value in state_dict.items() if not str(key).startswith(prefixes)}


def save_atomically(content: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """`torch.save` under a temporary name beside `path`, brought to the disk and then renamed.

    A crash or a full disk leaves the earlier file under `path` as it was. previous: the name that it keeps beside the
    new one. Raises UserError where saving fails, and for weights that are not finite.
    """
    if wrong := not_finite(content.get("state_dict", {})):
        raise UserError(
            f"{path}: not saved, as the weights have become NaN or infinite ({some_of(wrong)}); earlier checkpoints "
            "are as they were. Go on from one of them with a lower optimizer.lr"
        )
    try:
        with replacing(path, previous) as file:
            _save(content, file)
    except OSError as error:
        raise UserError(
            f"{path}: could not be saved ({error.strerror or error}); earlier checkpoints are as they were. Free "
            "space there, or see to the permissions, and start the run again"
        ) from error


def load_checkpoint(path: Path) -> Any:
    """What a file of `torch.save` holds, plain values and tensors on the CPU, its checksums verified.

    Raises UserError, saying what is wrong with the file.
    """
    if reason := why_damaged(path):
        raise UserError(f"{path}: {reason}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # bytes that are no checkpoint make the unpickler fail in many ways
        if advice := advice_for(path):
            raise UserError(f"{path}: {advice}") from error
        size = path.stat().st_size
        raise UserError(
            f"{path}: not a readable checkpoint ({size} bytes of another kind of file); expected one written by "
            "run_pretrain.py or run_downstream.py"
        ) from error


def _as_checkpoint(path: Path) -> dict[str, Any]:
    """A file of exported weights in the form of a checkpoint."""
    exported = read_exported(path)
    return {"state_dict": exported.weights, METADATA: exported.metadata}


class _Failing:
    """A binary file that remembers why writing failed: torch reports that as a RuntimeError of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(content: dict[str, Any], file: BinaryIO) -> None:
    watched = _Failing(file)
    try:
        torch.save(content, watched)
    except RuntimeError as error:
        raise watched.failure or error from error


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _listed(what: str, keys: list[str]) -> list[str]:
    return [f"{len(keys)} {what}: {some_of(keys)}"] if keys else []
