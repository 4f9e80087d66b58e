"""A task's items, which come without their signals where the features of these are known."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset

from mynah.downstream.feature_cache import FeatureCache

NO_SIGNAL = ()
"""Stands for one whose features are known; no tensor, which workers would hand over in a file of its own."""


class FeatureItems(Dataset):
    """The items of `dataset`, each with "key": a name of its signal where that comes again, else None.

    dataset: what a task's `get_dataset` returns. repeats: after so many passes the first comes again, with its crops;
    0 for never. A key is the item's "source", which tells the state of its file too; of datasets without `peek`, the
    name of a "fixed" item, which tells it apart within this process alone.
    Its own keys are (pass, index), or (pass, index, True) for an item with NO_SIGNAL.
    """

    def __init__(self, dataset: Any, repeats: int = 0):
        self.dataset, self.repeats = dataset, repeats

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def lengths(self) -> list[int]:
        """The dataset's."""
        return self.dataset.lengths

    @property
    def has_sources(self) -> bool:
        """Whether keys tell apart all signals there are, so that features may outlive the process."""
        return hasattr(self.dataset, "peek")

    @property
    def kept_lengths(self) -> Iterator[int]:
        """Lengths of the different signals that come again."""
        for length, times in zip(self.lengths, self._times(), strict=True):
            yield from [length] * times

    @property
    def num_changing(self) -> int:
        """Items whose crops are drawn anew in every pass, or would be without `repeats`."""
        return len(self) - sum(self.fixed)

    @property
    def fixed(self) -> list[bool]:
        """Of each item, whether it is the same in every pass without `repeats`."""
        return getattr(self.dataset, "fixed", None) or [True] * len(self)

    def __getitem__(self, key: tuple) -> dict[str, Any]:
        pass_index, index, *is_known = key
        key = self._repeated(pass_index), index
        item = {**self.dataset.peek(key), "signal": NO_SIGNAL} if is_known else self.dataset[key]
        return {**item, "key": self._key_of(item)}

    def is_known(self, key: tuple[int, int], cache: FeatureCache) -> bool:
        """Whether `cache` has the features of the item (pass, index)."""
        if not self.has_sources or not len(cache):
            return False
        name = self._key_of(self.dataset.peek((self._repeated(key[0]), key[1])))
        return name is not None and name in cache

    def _repeated(self, pass_index: int) -> int:
        return pass_index % self.repeats if self.repeats else pass_index

    def _key_of(self, item: dict[str, Any]) -> str | None:
        if self.has_sources:
            return item.get("source") if self.repeats or item.get("fixed") else None
        return item["name"] if item.get("fixed") else None

    def _times(self) -> list[int]:
        repeats = self.repeats if self.has_sources else 0
        return [1 if fixed else repeats for fixed in self.fixed]
