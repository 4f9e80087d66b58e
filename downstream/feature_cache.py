"""Caches of what a frozen upstream makes of signals that do not change."""

import hashlib

import torch
from torch import Tensor

from mynah.downstream.feature_store import FeatureStore
from mynah.utility.data.splits import hash_fraction

GIB = 2**30


class FeatureCache:
    """Keeps nothing; a subclass keeps the states of signals, (K, N, D) each, by their keys.

    What `keeps` says follows from the key and the settings alone, never from what was met before, so that a resumed
    run computes as the uninterrupted one did. What `in` has once found, `get` gives to the end of the process.
    """

    def keeps(self, key: str | None) -> bool:
        """Whether the states of this key are to be kept, room permitting; they are then computed alone."""
        return False

    def __contains__(self, key: str) -> bool:
        return False

    def __len__(self) -> int:
        """How many are kept."""
        return 0

    def get(self, key: str) -> Tensor | None:
        """(K, N, D), of what `keep` returned for this key; None where they are not kept."""
        return None

    def keep(self, key: str, states: Tensor) -> Tensor:
        """Keep states (K, N, D), if there is room; returns them as `get` will give them."""
        return states

    def flush(self) -> None:
        """Bring to its place what is kept so far."""


class MemoryCache(FeatureCache):
    """States in the memory of this process, as they were computed.

    room: bytes, a bound. needed: bytes of all that will come; where that is more, a share of the keys is chosen.
    """

    def __init__(self, room: int, needed: float = 0):
        self.room, self.share = room, min(1.0, room / max(needed, 1.0))
        self.states: dict[str, Tensor] = {}
        self.bytes_kept = 0

    def keeps(self, key: str | None) -> bool:
        return key is not None and hash_fraction(key) < self.share

    def __contains__(self, key: str) -> bool:
        return key in self.states

    def __len__(self) -> int:
        return len(self.states)

    def get(self, key: str) -> Tensor | None:
        return self.states.get(key)

    def keep(self, key: str, states: Tensor) -> Tensor:
        if self.bytes_kept + states.nbytes <= self.room:  # the share is an expectation; the room is a bound
            self.states[key] = states.cpu()
            self.bytes_kept += states.nbytes
        return states


class DiskCache(FeatureCache):
    """States in a `FeatureStore`, as numbers of `dtype`, to which they are rounded when they are first used too.

    float16 reaches to 65504: of a signal whose states go further, float32 is kept.
    """

    def __init__(self, store: FeatureStore, dtype: torch.dtype):
        self.store, self.dtype = store, dtype

    def keeps(self, key: str | None) -> bool:
        return key is not None

    def __contains__(self, key: str) -> bool:
        return _name_of(key) in self.store

    def __len__(self) -> int:
        return len(self.store)

    def get(self, key: str) -> Tensor | None:
        return self.store.get(_name_of(key))

    def keep(self, key: str, states: Tensor) -> Tensor:
        rounded = states.to(self.dtype)
        if self.dtype == torch.float16 and not rounded.isfinite().all():
            rounded = states.float()
        self.store.add(_name_of(key), rounded.to("cpu", copy=True).contiguous())
        return rounded

    def flush(self) -> None:
        self.store.flush()


def _name_of(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]
