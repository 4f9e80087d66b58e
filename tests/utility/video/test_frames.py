"""Sampling, resizing and normalizing frames, against torchvision and plain loops."""

import pytest
import torch
from torchvision.transforms import v2

from mynah.utility.video import frames
from mynah.utility.video.frames import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    normalize_frames,
    renormalization,
    sample_frames,
    sampled_positions,
    square_frames,
)


@pytest.mark.parametrize(("num_frames", "count"), [(1, 1), (1, 5), (7, 7), (300, 32), (10, 32), (2, 3), (9, 4)])
def test_frames_are_the_middles_of_equal_spans(num_frames, count):
    expected = [int((index + 0.5) * num_frames / count) for index in range(count)]
    assert sampled_positions(num_frames, count).tolist() == expected
    clip = (torch.arange(num_frames) % 250).to(torch.uint8)[:, None, None, None].expand(num_frames, 3, 2, 2)
    assert sample_frames(clip, count)[:, 0, 0, 0].tolist() == [index % 250 for index in expected]


@pytest.mark.parametrize("shape", [(48, 48), (48, 85), (85, 48), (31, 90), (200, 113), (47, 48)])
def test_squares_equal_torchvisions_resize_and_center_crop(shape):
    clip = torch.randint(0, 256, (3, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = v2.CenterCrop(48)(v2.Resize(48, antialias=True)(clip))
    assert torch.equal(square_frames(clip, 48), expected)


@pytest.mark.parametrize("shape", [(48, 85), (31, 90), (200, 113)])
def test_squares_on_other_devices_are_within_a_rounding_of_those_of_the_processor(shape, monkeypatch):
    clip = torch.randint(0, 256, (3, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = square_frames(clip, 48)
    monkeypatch.setattr(frames, "_resized", frames._resized_in_float)
    actual = square_frames(clip, 48)
    assert actual.dtype == torch.uint8
    assert (actual.int() - expected.int()).abs().max() <= 1


def test_normalization_equals_torchvisions():
    clip = torch.randint(0, 256, (2, 5, 3, 8, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scaled = v2.ToDtype(torch.float32, scale=True)(clip)
    expected = v2.Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION)(scaled)
    torch.testing.assert_close(normalize_frames(clip), expected, atol=1e-5, rtol=0)


def test_frames_can_be_brought_to_another_normalization():
    clip = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, deviation = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    expected = v2.Normalize(mean, deviation)(clip / 255)
    scale, shift = renormalization(mean, deviation)
    torch.testing.assert_close(normalize_frames(clip) * scale + shift, expected, atol=1e-5, rtol=0)
