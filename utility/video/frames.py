"""Frames of a clip as tensors: which of them are taken, their size, their scale."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def sampled_positions(num_frames: int, count: int) -> Tensor:
    """Indices of `count` frames evenly spaced over `num_frames`: the middle of each of `count` equal spans, (count,).

    All of them where count equals num_frames; where it is larger, frames are repeated.
    """
    # In integers: floor((i + 1/2) * num_frames / count).
    return (2 * torch.arange(count) + 1) * num_frames // (2 * count)


def sample_frames(clip: Tensor, count: int) -> Tensor:
    """clip: (T, 3, H, W) -> (count, 3, H, W), at `sampled_positions`."""
    if len(clip) == count:
        return clip
    return clip[sampled_positions(len(clip), count).to(clip.device)]


def square_frames(clip: Tensor, size: int) -> Tensor:
    """clip: (T, 3, H, W) uint8 -> (T, 3, size, size) uint8: the shorter side resized to `size`, the middle cut out.

    Bilinear with antialiasing, as torchvision's Resize followed by CenterCrop.
    """
    height, width = clip.shape[-2:]
    if min(height, width) != size:
        shorter, longer = min(height, width), max(height, width)
        scaled = size * longer // shorter
        target = (size, scaled) if height <= width else (scaled, size)
        clip = _resized(clip, target)
    height, width = clip.shape[-2:]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return clip[..., top : top + size, left : left + size]


def normalize_frames(frames: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 -> float32 of ImageNet's mean 0 and deviation 1."""
    shift, scale = _imagenet(frames.device)
    return (frames.float() - shift) / scale


def renormalization(mean: Sequence[float], deviation: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Scale and shift, (3, 1, 1) each: `frames * scale + shift` turns what `normalize_frames` gives into pixels in
    [0, 1] of another mean and deviation.
    """
    ours, their_mean, theirs = (
        torch.tensor(list(values))[:, None, None] for values in (IMAGENET_DEVIATION, mean, deviation)
    )
    return ours / theirs, (torch.tensor(IMAGENET_MEAN)[:, None, None] - their_mean) / theirs


def _resized(clip: Tensor, size: tuple[int, int]) -> Tensor:
    if clip.device.type == "cpu":
        return F.interpolate(clip, size, mode="bilinear", antialias=True)
    return _resized_in_float(clip, size)  # elsewhere torch has no kernel for bytes


def _resized_in_float(clip: Tensor, size: tuple[int, int]) -> Tensor:
    resized = F.interpolate(clip.float(), size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(clip.dtype)


@lru_cache
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the three colors in steps of a byte, once for each device: (3, 1, 1)."""
    with torch.inference_mode(False):  # or what validation leaves here could not be used in training
        values = 255 * torch.tensor([IMAGENET_MEAN, IMAGENET_DEVIATION], device=device)
        return values[0, :, None, None], values[1, :, None, None]
