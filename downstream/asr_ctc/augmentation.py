"""SpecAugment on features: warped in time, with masked times and features (Park et al. 2019)."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torchaudio.functional import mask_along_axis

from mynah.utility.configuration.sections import Section


class AugmentConfig(Section):
    """SpecAugment with SUPERB's widths; zeros for none."""

    time_warp: int = Field(5, ge=0)
    """Positions by which a point in time is moved at most."""
    num_time_masks: int = Field(2, ge=0)
    time_mask_width: int = Field(40, ge=0)
    """Positions of a mask at most, and never more than half the utterance."""
    num_feature_masks: int = Field(4, ge=0)
    feature_mask_width: int = Field(50, ge=0)
    """Features of a mask at most, and never more than half of them."""


def augment(features: Tensor, lengths: Tensor, config: AugmentConfig) -> Tensor:
    """(B, N, D), (B,) -> (B, N, D), each utterance changed by itself, within its length; the input stays as it is.

    What is random comes from torch's generator of the CPU, which every training step seeds.
    """
    changed = features.clone()
    for row, length in enumerate(lengths.tolist()):
        changed[row, :length] = _augment_one(features[row, :length], config)
    return changed


def _augment_one(features: Tensor, config: AugmentConfig) -> Tensor:
    """(N, D) -> (N, D)."""
    features = warp_time(features, config.time_warp)
    masks = (
        (0, config.num_time_masks, config.time_mask_width),
        (1, config.num_feature_masks, config.feature_mask_width),
    )
    for axis, count, width in masks:
        width = min(width, features.shape[axis] // 2)
        for _ in range(count if width else 0):
            features = mask_along_axis(features, width, 0.0, axis)
    return features


def warp_time(features: Tensor, window: int) -> Tensor:
    """(N, D) with a random point in time moved by at most `window` positions, what lies before and after it stretched
    or compressed; unchanged where there are too few positions."""
    count = len(features)
    if window < 1 or count <= 2 * window:
        return features
    center = int(torch.randint(window, count - window, ()))
    moved = int(torch.randint(center - window, center + window, ())) + 1
    parts = ((features[:center], moved), (features[center:], count - moved))
    return torch.cat([_resize(part, size) for part, size in parts if size])


def _resize(features: Tensor, size: int) -> Tensor:
    """(N, D) -> (size, D) by cubic interpolation in time."""
    image = features[None, None]
    return F.interpolate(image, (size, features.shape[1]), mode="bicubic", align_corners=False)[0, 0]
