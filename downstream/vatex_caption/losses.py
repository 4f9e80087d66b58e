"""Masked language modelling loss of captions."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from mynah.utility.albert.masked_captions import (
    CaptionMaskingConfig,
    CaptionVocabulary,
    MaskedCaptions,
    mask_captions,
    pad_captions,
)

from .model import CaptionModel

Captions = Sequence[Sequence[Sequence[int]]]
"""For each of B clips, its captions as lists of word pieces, [CLS] ... [SEP]; not all clips need have as many."""


def caption_losses(
    model: CaptionModel,
    embedded: Tensor,
    video_valid: Tensor | None,
    captions: Captions,
    masking: CaptionMaskingConfig,
    vocabulary: CaptionVocabulary,
    names: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of every masked word piece, (M,) float32 in nats, and the mean of each clip's, (B,).

    embedded, video_valid: of `CaptionModel.embed`. names: of the clips, to mask each as its name says, in every pass
    and every batch the same; None to draw masks from torch's own generator.
    """
    device = embedded.device
    if names is None:
        ids, valid = (each.to(device) for each in pad_captions(captions, vocabulary.pad_id))
        masked = mask_captions(ids, valid, masking, vocabulary)
    else:
        ids, valid, inputs, targets = (
            each.to(device) for each in _mask_by_name(captions, names, masking, vocabulary)
        )
        masked = MaskedCaptions(inputs, targets)
    losses = model.losses(embedded, video_valid, ids, valid, masked)
    clips = masked.targets.nonzero()[:, 0]
    totals = losses.new_zeros(len(captions)).index_add(0, clips, losses)
    return losses, totals / clips.bincount(minlength=len(captions)).clamp(min=1)


def _mask_by_name(
    captions: Captions, names: Sequence[str], masking: CaptionMaskingConfig, vocabulary: CaptionVocabulary
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ids, valid, inputs and targets of a batch, each (B, K, C). A clip is masked without the padding that the rest
    of the batch gives it, because as many random numbers are drawn as there are positions.
    """
    ids, valid = pad_captions(captions, vocabulary.pad_id)
    inputs, targets = ids.clone(), torch.zeros_like(valid)
    for clip, (own, name) in enumerate(zip(captions, names, strict=True)):
        seed = int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        masked = mask_captions(*pad_captions([own], vocabulary.pad_id), masking, vocabulary, generator)
        _, count, length = masked.inputs.shape
        inputs[clip, :count, :length] = masked.inputs[0]
        targets[clip, :count, :length] = masked.targets[0]
    return ids, valid, inputs, targets
