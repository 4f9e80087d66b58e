"""Captions as padded batches of word pieces, and what of them is masked in training (Lin et al. 2022, sec. 3.3)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from mynah.utility.configuration.sections import Section, rules


class CaptionVocabulary(Protocol):
    """What captioning needs to know of a tokenizer; ours are such."""

    vocab_size: int
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    special_ids: Collection[int]
    """All that stand for no word, the four above among them."""


class CaptionMaskingConfig(Section):
    """How much of a caption is masked, and what stands in its place."""

    mask_proportion: float = Field(0.5, gt=0, le=1)
    """Share of a caption's word pieces, special ones counted, that are masked; at least one is."""
    max_masked: int = Field(45, ge=1)
    """The most that are masked of one caption."""
    mask_token_probability: float = Field(0.8, ge=0, le=1)
    """Chance that [MASK] stands in the place of one that is masked."""
    random_token_probability: float = Field(0.1, ge=0, le=1)
    """Chance that any word piece does instead; what is left keeps its own."""
    max_length: int = Field(50, ge=3)
    """The longest caption, in word pieces, special ones included; longer ones are cut."""

    @rules
    def _chances_add_up(self) -> Iterable[str | None]:
        if self.mask_token_probability + self.random_token_probability > 1:
            yield "random_token_probability: mask_token_probability + random_token_probability is more than 1"


@dataclass(frozen=True)
class MaskedCaptions:
    """Captions as the model is shown them, and where it is asked what stood there."""

    inputs: Tensor
    """(..., C) int64 word pieces."""
    targets: Tensor
    """(..., C) bool; the labels are the original word pieces in these positions."""


def pad_captions(captions: Sequence[Sequence[Sequence[int]]], pad_id: int) -> tuple[Tensor, Tensor]:
    """captions: for each of B clips, its captions as lists of word pieces ([CLS] ... [SEP]).

    Returns (B, K, C) int64 and (B, K, C) bool, True where there is a word piece: C that of the longest caption, K
    that of the clip with the most; other clips have captions of padding alone.
    """
    num_captions = max(len(of_clip) for of_clip in captions)
    longest = max((len(caption) for of_clip in captions for caption in of_clip), default=0)
    ids = torch.full((len(captions), num_captions, longest), pad_id)
    valid = torch.zeros(ids.shape, dtype=torch.bool)
    for clip, of_clip in enumerate(captions):
        for index, caption in enumerate(of_clip):
            ids[clip, index, : len(caption)] = torch.as_tensor(caption, dtype=torch.int64)
            valid[clip, index, : len(caption)] = True
    return ids, valid


def mask_captions(
    ids: Tensor,
    valid: Tensor,
    config: CaptionMaskingConfig,
    vocabulary: CaptionVocabulary,
    generator: torch.Generator | None = None,
) -> MaskedCaptions:
    """ids: (..., C) int64 captions, padded at their ends; valid: (..., C) bool.

    Of a caption of n word pieces, round(mask_proportion * n) are masked, at least one and at most max_masked, among
    all but the first ([CLS]): [SEP] is what a caption's end is learned from. A caption of fewer than two pieces has
    none. Random numbers come from `generator`, on the tensors' device, or else from torch's own.
    """
    lengths = valid.sum(-1, keepdim=True)
    wanted = (config.mask_proportion * lengths).round().long().clamp(min=1, max=config.max_masked)
    candidate = valid & (torch.arange(ids.shape[-1], device=ids.device) > 0)

    def draw() -> Tensor:
        return torch.rand(ids.shape, generator=generator, device=ids.device)

    rank = draw().masked_fill(~candidate, 2.0).argsort(-1).argsort(-1)
    targets = candidate & (rank < wanted)
    dice = draw()
    masked = targets & (dice < config.mask_token_probability)
    replaced = targets & ~masked & (dice < config.mask_token_probability + config.random_token_probability)
    others = torch.randint(vocabulary.vocab_size, ids.shape, generator=generator, device=ids.device)
    return MaskedCaptions(torch.where(replaced, others, ids.masked_fill(masked, vocabulary.mask_id)), targets)
