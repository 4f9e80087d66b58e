"""Composition of batches: a pure function of the seed and the position in the run.

Utterances of similar length are batched together, so that little is padding, and the batches come in random order.
Nothing is remembered between batches: a run resumed at position p sees what the uninterrupted one saw from p on,
whatever the number of worker processes, and several processes share the very batches that one would see.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from mynah.utility.errors import UserError

NEIGHBORS = 0.1
"""Lengths are perturbed by up to this share before sorting, so that the same utterances do not always meet."""

ORDER_STREAM = 2
"""Sets the order's random numbers apart from the crops' and the masks', which are drawn of the seed and pass too."""

Key = tuple[int, int]
"""(pass over the data, index of the utterance)"""


class TrainingBatches(Sampler[list[Key]]):
    """Batches `start` to `num_batches` of an endless stream of shuffled passes over the data.

    lengths: samples of each utterance. batch_size: utterances a process; max_samples: instead, the most padded
    samples a process, where an utterance alone is not longer. Of the global batch, `world_size` times as large,
    rank r takes every world_size-th item. A global batch with fewer items than processes (at most the last of a
    pass) is left out. Raises UserError if there are fewer utterances than processes.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        num_batches: int,
        *,
        seed: int,
        max_samples: int | None = None,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.lengths = np.asarray(lengths)
        self.batch_size, self.max_samples = batch_size, max_samples
        self.num_batches, self.start, self.seed = num_batches, start, seed
        self.rank, self.world_size = rank, world_size
        if len(self.lengths) < world_size:
            raise UserError(f"{len(self.lengths)} training items cannot be shared among {world_size} processes")

    def __len__(self) -> int:
        """Of the whole run, those before `start` included: Lightning counts from the beginning too."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[Key]]:
        position, pass_index = 0, 0
        while position < self.num_batches:
            batches = self.batches_of_pass(pass_index)
            for batch in batches[max(0, self.start - position) : self.num_batches - position]:
                yield [(pass_index, int(index)) for index in batch[self.rank :: self.world_size]]
            position += len(batches)
            pass_index += 1

    def batches_of_pass(self, pass_index: int) -> list[np.ndarray]:
        """The global batches of one pass, in order; every utterance stands in one of them."""
        generator = np.random.default_rng([self.seed, pass_index, 0, ORDER_STREAM])
        noise = generator.uniform(1 - NEIGHBORS, 1 + NEIGHBORS, len(self.lengths))
        order = np.lexsort((generator.permutation(len(self.lengths)), self.lengths * noise))
        batches = _cut(order, self.lengths, self.batch_size, self.max_samples, self.world_size)
        batches = [batch for batch in batches if len(batch) >= self.world_size]
        return [batches[index] for index in generator.permutation(len(batches))]


class EvaluationBatches(Sampler[list[Key]]):
    """Every utterance once, longest first, in the share of this process; padding stays small and order fixed."""

    def __init__(self, lengths: Sequence[int], batch_size: int, rank: int = 0, world_size: int = 1):
        if len(lengths) < world_size:  # a process without a batch would leave the others waiting for its share
            raise UserError(f"{len(lengths)} held-out items cannot be shared among {world_size} processes")
        order = np.argsort(-np.asarray(lengths), kind="stable")[rank::world_size]
        self.batches = _cut(order, np.asarray(lengths), batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.batches:
            yield [(0, int(index)) for index in batch]


def _cut(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, max_samples: int | None = None, processes: int = 1
) -> list[np.ndarray]:
    """Cut a sequence of indices into global batches: by items a process, or by padded samples a process.

    By samples a process still gets an item at least; only the last batch may have fewer items than processes.
    """
    if max_samples is None:
        size = batch_size * processes
        return [order[first : first + size] for first in range(0, len(order), size)]
    batches, first, longest = [], 0, 0
    for end, index in enumerate(order):
        longest = max(longest, lengths[index])
        largest_share = -(-(end + 1 - first) // processes)
        if end - first >= processes and longest * largest_share > max_samples:
            batches.append(order[first:end])
            first, longest = end, lengths[index]
    return [*batches, order[first:]] if len(order) else []
