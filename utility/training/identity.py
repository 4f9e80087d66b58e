"""What makes a run the run it is: its data, what it holds out, and the order of its batches."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mynah.utility.configuration.load import to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.provenance import library_versions

STREAM_SECTIONS = ("datarc", "dataloader", "masking")
"""The sections of a configuration that decide what a batch holds, but for these keys:"""
HARMLESS = {
    "dataloader.num_workers",
    "dataloader.eval_batch_size",
    "datarc.file_path",  # the fingerprint of what is found there counts
    "datarc.max_bad_fraction",
    "datarc.max_seconds",
    "datarc.cache_frames",
    "datarc.frame_cache",
}

log = logging.getLogger("mynah")


def fingerprint(names: Iterable[str], lengths: Iterable[int]) -> str:
    """16 hexadecimal digits that stand for these items, in this order, wherever their files lie."""
    digest = hashlib.sha256()
    for name, length in zip(names, lengths, strict=True):
        digest.update(f"{name}\t{length}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def dataset_fingerprint(dataset: Any) -> str:
    """That of a dataset's items: their lengths, and their names where the dataset has `names`."""
    lengths = list(dataset.lengths)
    return fingerprint(getattr(dataset, "names", None) or [""] * len(lengths), lengths)


def run_identity(config: Any, data: dict[str, str], processes: int) -> dict[str, Any]:
    """What a checkpoint says of its run. data: fingerprints by split; processes: of all nodes."""
    plain = to_plain(config)
    stream = {
        "seed": config.seed,
        "trainer.accumulate_grad_batches": config.trainer.get("accumulate_grad_batches", 1),
    }
    for section in STREAM_SECTIONS:
        stream |= {key: value for key, value in flatten(plain.get(section), section) if key not in HARMLESS}
    if (size := stream.pop("dataloader.batch_size", None)) is not None:
        stream["dataloader.batch_size x processes"] = size * processes
    if stream.get("dataloader.max_batch_seconds") is not None:  # a bound of each process's batch
        stream["processes with dataloader.max_batch_seconds"] = processes
    return {"stream": stream, "data": data, "processes": processes, "versions": library_versions()}


def compare_identity(own: dict[str, Any], earlier: dict[str, Any], source: Path, allow_changes: bool) -> bool:
    """Say how a resumed run differs from the one in the checkpoint `source`; whether its best score must begin anew.

    Raises UserError where the data or the order of batches differ, unless `allow_changes` (--allow-changes).
    """
    for name, value in _changes(own["versions"], earlier.get("versions", {})):
        log.info("the run was begun with %s", f"{name} {value}")
    stream = own["stream"]
    grave = [f"{key} is {stream[key]}, was {value}" for key, value in _changes(stream, earlier["stream"])]
    for split, value in _changes(own["data"], earlier["data"]):
        what = f"the {split} data is another (names or lengths differ: {own['data'].get(split)}, was {value})"
        if split == "test":
            log.warning("%s", what)
        else:
            grave.append(what)
    if not grave and own["processes"] != earlier["processes"]:
        log.warning(
            "%d processes instead of %d: each step sees the items that it would have seen, but dropout is drawn in "
            "each process, and sums are rounded otherwise, so the weights will not be the same to the last bit",
            *(own["processes"], earlier["processes"]),
        )
    if grave and not allow_changes:
        raise UserError(
            f"{'; '.join(grave)}: {source} was trained otherwise, so the run would see some data twice or never, or "
            "train on what it has held out. Leave it as it was, go on all the same with --allow-changes (the best "
            "score begins anew then), or start a new run from these weights with --init-from"
        )
    for change in grave:
        log.warning("allowed: %s", change)
    return bool(grave)


def _changes(own: dict[str, Any], earlier: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, earlier value) of what differs; a key that only one of them knows was not yet recorded then."""
    for key in sorted(own.keys() & earlier.keys()):
        if own[key] != earlier[key]:
            yield key, earlier[key]


def flatten(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """("section.key", value) of everything in a plain configuration; the corpora of datarc.file_path as one value."""
    if isinstance(value, dict) and key != "datarc.file_path":
        for name, each in value.items():
            yield from flatten(each, f"{key}.{name}".removeprefix("."))
    else:
        yield key, value
