"""Batch schedules: what is in them, in which order, and that a resumed or shared run sees the same ones."""

import itertools

import numpy as np
import pytest

from mynah.utility.errors import UserError
from mynah.utility.training.batching import EvaluationBatches, TrainingBatches

LENGTHS = np.random.default_rng(0).integers(16000, 160000, 103).tolist()


def schedule(num_batches: int = 60, batch_size: int = 8, lengths=LENGTHS, seed: int = 5, **options) -> list:
    return list(TrainingBatches(lengths, batch_size, num_batches, seed=seed, **options))


def padded(batch: list, lengths=LENGTHS) -> int:
    return max(lengths[index] for _, index in batch) * len(batch)


@pytest.mark.parametrize("max_samples", [None, 500_000])
def test_every_utterance_is_seen_once_a_pass(max_samples):
    batches = schedule(200, max_samples=max_samples)
    passes = {}
    for number, indices in itertools.groupby(itertools.chain(*batches), key=lambda key: key[0]):
        assert number not in passes  # one pass ends before the next begins
        passes[number] = [index for _, index in indices]
    complete = list(passes)[:-1]
    assert len(complete) >= 3
    assert complete == list(range(len(complete)))
    for number in complete:
        assert sorted(passes[number]) == list(range(len(LENGTHS)))


def test_the_stream_ends_where_the_run_does():
    assert len(schedule(60)) == 60
    assert len(TrainingBatches(LENGTHS, 8, 60, seed=5, start=40)) == 60
    assert [len(batch) for batch in schedule(13)].count(8) == 12  # 103 = 12 * 8 + 7
    assert sorted(len(batch) for batch in schedule(13))[0] == 7


def test_order_is_a_function_of_seed_and_pass():
    assert schedule() == schedule()
    assert schedule() != schedule(seed=6)
    of_pass = [[{index for _, index in batch} for batch in schedule(26)[first : first + 13]] for first in (0, 13)]
    assert of_pass[0] != of_pass[1]
    assert sorted(map(sorted, of_pass[0])) != sorted(
        map(sorted, of_pass[1])
    )  # other neighbors, not only another order


def test_batches_do_not_come_in_the_order_of_their_lengths():
    """The correlation of 13 random ranks deviates by 0.29; the mean of 40 such by 0.05."""
    longest = [max(LENGTHS[index] for _, index in batch) for batch in schedule(13 * 40)]
    passes = [longest[first : first + 13] for first in range(0, len(longest), 13)]
    assert abs(np.mean([np.corrcoef(range(13), one)[0, 1] for one in passes])) < 0.2


@pytest.mark.parametrize("max_samples", [None, 500_000])
@pytest.mark.parametrize("start", [0, 1, 12, 13, 14, 27, 59, 60])
def test_a_resumed_run_sees_the_same_tail(start, max_samples):
    assert schedule(max_samples=max_samples, start=start) == schedule(max_samples=max_samples)[start:]


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_very_batches_of_one_process(world_size):
    whole = [batch for batch in schedule(batch_size=12) if len(batch) >= world_size]
    shares = [schedule(batch_size=12 // world_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert sorted(itertools.chain(*parts)) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert min(map(len, parts)) >= 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("max_samples", [100_000, 400_000, 1_000_000])
def test_batches_by_samples_stay_within_the_bound_of_each_process(max_samples, world_size):
    fullness = []
    for rank in range(world_size):
        for batch in schedule(200, max_samples=max_samples, rank=rank, world_size=world_size):
            assert len(batch) == 1 or padded(batch) <= max_samples
            fullness.append(padded(batch) / max_samples)
    assert np.mean(fullness) > 0.6


def test_utterances_longer_than_the_bound_are_still_seen_by_several_processes():
    lengths = [50_000] * 9 + [300_000] * 4
    options = {"lengths": lengths, "max_samples": 200_000, "world_size": 2}
    seen = {index for rank in (0, 1) for batch in schedule(60, rank=rank, **options) for _, index in batch}
    assert seen == set(range(13))


def test_little_is_padding():
    def efficiency(batches):
        return sum(LENGTHS[index] for _, index in itertools.chain(*batches)) / sum(map(padded, batches))

    shuffled = np.random.default_rng(0).permutation(len(LENGTHS))
    at_random = [[(0, index) for index in shuffled[first : first + 8]] for first in range(0, len(LENGTHS), 8)]
    assert efficiency(at_random) < 0.7
    assert efficiency(schedule(13)) > 0.85
    assert efficiency(list(EvaluationBatches(LENGTHS, 8))) > 0.9


def test_a_short_rest_is_left_out_rather_than_leaving_a_process_without_items():
    """9 items for 2 processes of 4: the ninth would have no partner."""
    for rank in (0, 1):
        batches = schedule(5, batch_size=4, lengths=[100] * 9, rank=rank, world_size=2)
        assert [len(batch) for batch in batches] == [4] * 5
        assert [batch[0][0] for batch in batches] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("count", "world_size"), [(0, 1), (1, 2), (3, 4)])
def test_fewer_utterances_than_processes_are_refused(count, world_size):
    with pytest.raises(UserError, match=rf"{count} .*{world_size} processes"):
        schedule(5, lengths=[100] * count, world_size=world_size)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_everything_once_longest_first(world_size):
    shares = [list(EvaluationBatches(LENGTHS, 8, rank, world_size)) for rank in range(world_size)]
    keys = [key for share in shares for batch in share for key in batch]
    assert sorted(keys) == [(0, index) for index in range(len(LENGTHS))]
    for rank, share in enumerate(shares):
        assert len(EvaluationBatches(LENGTHS, 8, rank, world_size)) == len(share)
        lengths = [LENGTHS[index] for batch in share for _, index in batch]
        assert lengths == sorted(lengths, reverse=True)
        assert {len(batch) for batch in share[:-1]} == {8}
