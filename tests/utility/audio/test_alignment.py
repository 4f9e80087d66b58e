"""utility/audio/alignment.py: labels of positions against a loop over every position and segment."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from mynah.utility.audio.alignment import IGNORED, FrameLabels, PositionGrid, labels_at, segments_at_rate


def brute_force(segments, times, outside) -> list[int]:
    labels = []
    for time in times:
        holding = [label for start, end, label in segments if start <= time < end]
        labels.append(holding[0] if holding else outside)
    return labels


def random_segments(generator: np.random.Generator, count: int) -> list[tuple[float, float, int]]:
    """Apart, touching, or with a gap."""
    segments, end = [], 0.0
    for _ in range(count):
        start = end + generator.choice([0.0, 0.013, 0.2])
        end = start + generator.uniform(0.004, 0.3)
        segments.append((start, end, int(generator.integers(9))))
    return segments


@pytest.mark.parametrize("stride, first_center", [(160, 0.0), (160, 200.0), (320, 199.5), (320, 160.0), (384, 192.0)])
@pytest.mark.parametrize("outside", [IGNORED, 3])
def test_labels_of_whole_files_and_of_crops_are_those_of_a_loop_over_time(stride, first_center, outside):
    generator = np.random.default_rng(0)
    at_crop = FrameLabels(PositionGrid(stride, first_center), outside)
    for count in (0, 1, 5, 20):
        segments = random_segments(generator, count)
        for start in (0, 1, 4567, 16000):
            found = at_crop(segments, start, 24000)
            times = [(start + first_center + stride * position) / 16000 for position in range(len(found))]
            assert found.dtype == torch.int64 and len(found) >= 24000 / stride
            assert found.tolist() == brute_force(segments, times, outside)


@pytest.mark.parametrize("stride, first_center", [(160, 200.0), (320, 199.5)])
def test_a_crop_has_the_labels_of_the_whole_at_the_same_times(stride, first_center):
    segments = random_segments(np.random.default_rng(1), 30)
    at_crop = FrameLabels(PositionGrid(stride, first_center))
    whole = at_crop(segments, 0, 64000)
    for skipped in (0, 1, 17):
        crop = at_crop(segments, skipped * stride, 16000)
        assert crop.tolist() == whole[skipped : skipped + len(crop)].tolist()


def test_a_segments_end_does_not_belong_to_it_and_touching_ones_leave_no_gap():
    assert labels_at([(0.0, 0.5, 1), (0.5, 1.0, 2)], np.array([0.0, 0.499, 0.5, 0.999, 1.0])).tolist() == [
        1, 1, 2, 2, IGNORED,
    ]  # fmt: skip


def test_no_segments_and_no_times_are_no_mistake():
    assert labels_at([], np.array([0.1, 0.2]), outside=7).tolist() == [7, 7]
    assert labels_at([(0.0, 1.0, 1)], np.array([])).tolist() == []


def test_labels_at_a_rate_come_back_at_that_rate():
    labels = np.random.default_rng(2).integers(3, size=200).tolist()
    segments = segments_at_rate(labels, 0.01)
    assert labels_at(segments, (np.arange(200) + 0.5) / 100).tolist() == labels
    assert all(one[2] != other[2] for one, other in pairwise(segments))
