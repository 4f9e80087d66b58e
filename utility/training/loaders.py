"""Data loaders, and counting of unreadable files."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.data.media_files import printable
from mynah.utility.errors import UserError
from mynah.utility.training.allocator import give_back_freed_memory
from mynah.utility.training.batching import EvaluationBatches, TrainingBatches
from mynah.utility.training.config import LoaderConfig

log = logging.getLogger("mynah")

MAX_SUBSTITUTES = 20

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]
IsKnown = Callable[[tuple[int, int]], bool]


class ReadableItems(Dataset):
    """A dataset whose unreadable items give way to the next readable one, and are named under "bad".

    dataset: its items are {"signal": ..., "name": ...}, or {"signal": None, "name": str, "error": str}. So a batch
    keeps its size, and what it holds stays a function of its keys. Keys that `AskedBatches` marks are passed on.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple) -> dict[str, Any]:
        pass_index, first, *is_known = key
        if is_known:
            return {**self.dataset[key], "bad": []}
        bad: list[tuple[str, str]] = []
        for index in range(first, first + min(MAX_SUBSTITUTES, len(self))):
            item = self.dataset[(pass_index, index % len(self))]
            if item["signal"] is not None:
                return {**item, "bad": bad}
            bad.append((item["name"], item["error"]))
        raise UserError(f"{len(bad)} files in a row could not be read, the first {bad[0][0]}: {bad[0][1]}")


class AskedBatches(Sampler[list[tuple]]):
    """Batches of keys, (pass, index) or (pass, index, True): the latter's items are needed without their signals.

    is_known: says so of a (pass, index). It is asked in the process that iterates over the loader when a batch is
    handed to a worker, and what it has once called known must stay so.
    """

    def __init__(self, batches: Sampler, is_known: IsKnown):
        self.batches, self.is_known = batches, is_known

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple]]:
        for batch in self.batches:
            yield [(*key, True) if self.is_known(key) else key for key in batch]


class BadFileLog:
    """Counts files that turned out unreadable during the run, and gives up when they are too many."""

    def __init__(self, path: Path, num_files: int, max_bad_fraction: float):
        self.path, self.num_files, self.max_bad_fraction = path, num_files, max_bad_fraction
        self.names: set[str] = set()
        self.listed: set[str] | None = None  # in the file by an earlier leg of the run; unread as yet

    def note(
        self, bad: Sequence[tuple[str, str]], over_processes: Callable[[int], int] = lambda count: count
    ) -> None:
        """bad: (name, reason) pairs. Raises UserError past the share that is allowed.

        over_processes: a number in each process -> their sum, where every process calls `note` as often.
        """
        for name, reason in bad:
            if name in self.names:
                continue
            self.names.add(name)
            name_shown = printable(name)
            self._list(name_shown, f"{name_shown}\t{printable(reason)}\n")
            log.warning("skipped %s: %s (%d so far, listed in %s)", name_shown, reason, len(self.names), self.path)
        count = over_processes(len(self.names))
        if count > max(1, self.max_bad_fraction * self.num_files):
            raise UserError(
                f"{count} of {self.num_files} files could not be read, more than "
                f"datarc.max_bad_fraction={self.max_bad_fraction} allows; they are listed in {self.path}"
            )

    def _list(self, name: str, line: str) -> None:
        if self.listed is None:
            lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
            self.listed = {each.partition("\t")[0] for each in lines}
        if name not in self.listed:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:  # each process tells of its own share
                file.write(line)


def training_loader(
    dataset: Dataset,
    lengths: Sequence[int],
    config: LoaderConfig,
    collate: Collate,
    *,
    num_batches: int,
    start: int,
    seed: int,
    rank: int,
    world_size: int,
    pin: bool = True,
    is_known: IsKnown | None = None,
) -> DataLoader:
    """Batches `start` to `num_batches` of the run; lengths: samples of each item of the dataset; pin: copy the
    tensors of a batch into pinned memory where there is a GPU; is_known: see AskedBatches."""
    batches = TrainingBatches(
        lengths,
        config.batch_size,
        num_batches,
        seed=seed,
        max_samples=config.max_batch_seconds and int(config.max_batch_seconds * SAMPLE_RATE),
        start=start,
        rank=rank,
        world_size=world_size,
    )
    return _loader(ReadableItems(dataset), batches, config, collate, pin, is_known)


def evaluation_loader(
    dataset: Dataset,
    lengths: Sequence[int],
    config: LoaderConfig,
    collate: Collate,
    rank: int,
    world_size: int,
    pin: bool = True,
    is_known: IsKnown | None = None,
) -> DataLoader:
    """Every item once, whole or with the crop of pass 0, in the share of this process; is_known: see AskedBatches."""
    batches = EvaluationBatches(lengths, config.eval_batch_size, rank, world_size)
    return _loader(dataset, batches, config, collate, pin, is_known)


def bad_items(items: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(name, reason) of everything that could not be read on the way to these items."""
    unreadable = [(item["name"], item["error"]) for item in items if item["signal"] is None]
    return unreadable + [entry for item in items for entry in item.get("bad", [])]


class UninterruptedLoader(DataLoader):
    """A DataLoader whose workers ignore SIGINT and SIGHUP, which a terminal sends them too: the run needs them."""

    def __iter__(self) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})  # workers inherit it
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(index: int) -> None:
    give_back_freed_memory()  # a worker does not repeat the buffers of a training step
    sys.excepthook = _report_but_lost_connections


def _report_but_lost_connections(kind: type, error: BaseException, trace: TracebackType | None) -> None:
    """For the thread that hands tensors over: where the run has ended, nobody takes them."""
    if not isinstance(error, EOFError | OSError):
        sys.__excepthook__(kind, error, trace)


def _loader(
    dataset: Dataset, batches: Sampler, config: LoaderConfig, collate: Collate, pin: bool, is_known: IsKnown | None
) -> DataLoader:
    return UninterruptedLoader(
        dataset,
        batch_sampler=batches if is_known is None else AskedBatches(batches, is_known),
        collate_fn=collate,
        num_workers=config.num_workers,
        pin_memory=pin and torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
        prefetch_factor=4 if config.num_workers else None,
    )
