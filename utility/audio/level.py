"""Loudness normalization of waveforms."""

import torch
from torch import Tensor

RMS_FLOOR = 1e-10


def scale_to_level(wavs: Tensor, lengths: Tensor, level_db: float) -> Tensor:
    """wavs: (B, T), zeros beyond lengths: (B,) samples -> (B, T) float32, each of that RMS in decibels of full scale.

    The factor is 10 ** (level_db / 20) / (RMS + 1e-10), as in s3prl; silence stays silence.
    """
    # Not the root of a mean: at silence its gradient would be NaN.
    rms = torch.linalg.vector_norm(wavs.float(), dim=1) / lengths.sqrt()
    return wavs.float() * (10 ** (level_db / 20) / (rms + RMS_FLOOR))[:, None]
