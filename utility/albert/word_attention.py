"""Attention of generated words to video tokens, for pictures."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.masked_captions import CaptionVocabulary


@torch.no_grad()
def word_attention(
    model: AlbertForImageCaptioning,
    embedded: Tensor,
    video_valid: Tensor | None,
    captions: Sequence[Sequence[int]],
    vocabulary: CaptionVocabulary,
) -> list[Tensor]:
    """embedded: (B, N, hidden_size), video_valid: (B, N) bool or None, captions: the word pieces of each of the B
    clips, without [CLS] and [SEP].

    Returns for each clip of T word pieces (T, N): the attention to each video token of the [MASK] in whose place a
    word was said, mean over heads and layers; a row sums to 1.
    """
    # Every step of saying a caption is a caption of the clip: [CLS] w_1 .. w_{t-1} [MASK].
    steps = max(1, *(len(caption) for caption in captions))
    ids = torch.full((len(captions), steps, steps + 1), vocabulary.pad_id)
    said = torch.ones_like(ids, dtype=torch.bool).tril(1)  # step t has t + 2 pieces, t words among them
    for clip, caption in enumerate(captions):
        ids[clip, :, 0] = vocabulary.cls_id
        ids[clip, :, 1 : len(caption) + 1] = torch.as_tensor(caption, dtype=torch.int64)
    step = torch.arange(steps)
    ids[:, step, step + 1] = vocabulary.mask_id
    attention = model.video_attention(ids.to(embedded.device), said.to(embedded.device), embedded, video_valid)
    of_masks = attention.float().mean(0)[:, step, step + 1]
    of_masks = of_masks / of_masks.sum(-1, keepdim=True)
    return [of_clip[: len(caption)] for of_clip, caption in zip(of_masks, captions, strict=True)]
