"""Caches of what a frozen upstream makes of signals that do not change."""

from torch import Tensor

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
