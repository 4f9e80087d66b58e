"""utility/video/packets.py: which frames are taken and what must be decoded for them, against brute force."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from mynah.utility.video.packets import SEEK_COST, PacketInfo, Timeline, shown_times, wanted_runs


def shown_at(times: list[int], moment: Fraction) -> int:
    """The index of the last frame that has appeared by then, by looking at each."""
    return max(index for index, time in enumerate(times) if time <= moment)


@pytest.mark.parametrize("seed", range(20))
def test_the_frame_shown_in_the_middle_of_each_span_is_taken(seed):
    draw = np.random.default_rng(seed)
    times = [int(time) for time in np.cumsum(draw.integers(1, 50, size=draw.integers(1, 40))) - 100]
    end = times[-1] + int(draw.integers(1, 50))
    num_frames = int(draw.integers(1, 20))
    timeline = Timeline(times, end, Fraction(1, 1000))
    span = Fraction(end - times[0], num_frames)
    middles = [times[0] + span * i + span / 2 for i in range(num_frames)]
    assert timeline.sample(num_frames) == [shown_at(times, middle) for middle in middles]


def test_of_10_even_frames_5_are_the_odd_ones_and_20_are_each_twice():
    timeline = Timeline(list(range(0, 1000, 100)), 1000, Fraction(1, 1000))
    assert timeline.sample(5) == [1, 3, 5, 7, 9]
    assert timeline.sample(10) == list(range(10))
    assert timeline.sample(20) == [index // 2 for index in range(20)]
    assert timeline.seconds == 1.0


def test_a_part_is_sampled_like_a_clip_of_its_own():
    timeline = Timeline(list(range(500, 1500, 100)), 1500, Fraction(1, 1000))
    assert timeline.sample(2, 0.2, 0.6) == [3, 5]
    assert timeline.sample(3, 0.7) == [7, 8, 9]
    assert timeline.sample(2, 0.8, 99) == [8, 9]  # what is beyond the end is left out


def test_a_frame_that_stays_long_is_taken_often():
    timeline = Timeline([0, 100, 900], 1000, Fraction(1, 1000))
    assert timeline.sample(10) == [0] + [1] * 8 + [2]


def test_times_are_told_only_if_each_frame_has_one_of_its_own():
    def packets(*times):
        return [PacketInfo(time, None, 1, True) for time in times]

    assert shown_times(packets(0, 3, 1)) == [0, 1, 3]
    assert shown_times(packets(0, None, 1)) == []
    assert shown_times(packets(0, 1, 1)) == []
    assert shown_times([]) == []
    assert shown_times([*packets(0, 1), PacketInfo(2, None, 1, key=False, shown=False)]) == [0, 1]


def group_of_pictures(first: int, length: int, open_group: bool) -> list[PacketInfo]:
    """A key frame and then each pair of frames in reverse; if open, two frames shown before it come after it."""
    order = [first, *([first - 2, first - 1] if open_group else [])]
    rest = range(first + 1, first + length)
    for pair in zip(rest[::2], rest[1::2], strict=len(rest) % 2 == 0):
        order += pair[::-1]
    order += rest[len(rest) // 2 * 2 :]
    return [PacketInfo(time, None, 1, time == first) for time in order]


def random_packets(draw: np.random.Generator) -> list[PacketInfo]:
    packets, time = [], 0
    for number in range(draw.integers(1, 8)):
        open_group, length = bool(number and draw.integers(2)), int(draw.integers(1, 12))
        time += 2 * open_group
        packets += group_of_pictures(time, length, open_group)
        time += length
    return packets


def needed(packets: list[PacketInfo], time: int) -> range:
    """The packets from the last key frame that comes before this frame in the file and in time."""
    index = next(index for index, packet in enumerate(packets) if packet.pts == time)
    keys = [key for key in range(index + 1) if packets[key].key and packets[key].pts <= time]
    return range(max(keys), index + 1)


@pytest.mark.parametrize("seed", range(30))
def test_runs_hold_what_each_frame_needs_and_nothing_that_a_seek_would_save(seed):
    draw = np.random.default_rng(seed)
    packets = random_packets(draw)
    wanted = {packets[index].pts for index in draw.integers(0, len(packets), size=draw.integers(1, 6))}
    runs = wanted_runs(packets, wanted)
    for time in wanted:
        stretch = needed(packets, time)
        assert any(run.start <= stretch.start and stretch.stop <= run.stop for run in runs)
    for run, following in pairwise(runs):
        assert following.start - run.stop > SEEK_COST
    assert all(packets[run.start].key and packets[run.stop - 1].pts in wanted for run in runs)
    must = {index for time in wanted for index in needed(packets, time)}
    superfluous = sorted({index for run in runs for index in run} - must)
    stretches = np.split(superfluous, np.flatnonzero(np.diff(superfluous) > 1) + 1)
    assert all(len(stretch) <= SEEK_COST for stretch in stretches)


def test_a_frame_before_the_key_frame_that_it_follows_in_the_file_needs_the_group_before():
    packets = [*group_of_pictures(0, 20, False), *group_of_pictures(22, 20, True)]
    assert wanted_runs(packets, {21}) == [range(0, 23)]
    assert wanted_runs(packets, {22}) == [range(20, 21)]
    assert wanted_runs(packets, {22, 21}) == [range(0, 23)]


def test_a_file_that_does_not_begin_with_a_key_frame_is_decoded_from_its_start():
    packets = [PacketInfo(time, None, 1, time == 9) for time in range(20)]
    assert wanted_runs(packets, {3}) == [range(0, 4)]
