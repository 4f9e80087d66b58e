"""Captions from a captioning model: greedy and beam search.

A caption grows from the left (caption_memory.py says how) until [SEP] is its most probable next word or it is full.
Of the word pieces that stand for no word, [SEP] alone can come.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from mynah.utility.albert.caption_memory import CachedDecoder
from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.masked_captions import CaptionVocabulary
from mynah.utility.configuration.sections import Section, rules
from mynah.utility.errors import UserError


class GenerationConfig(Section):
    """How captions are searched for."""

    max_length: int = Field(20, ge=1)
    """The most word pieces of a caption; one that has them ends without [SEP]."""
    min_length: int = Field(0, ge=0)
    """Word pieces before [SEP] may come."""
    num_beams: int = Field(1, ge=1)
    """Captions that are pursued at a time; 1 is greedy search, the most probable word each time."""
    num_return: int = Field(1, ge=1)
    """Captions given for a clip, the best ones, best first; at most num_beams."""
    length_penalty: float = Field(1.0, ge=-100, le=100)
    """A caption's score is its log-probability over the number of its word pieces, [SEP] included, to this power: 0
    compares log-probabilities, 1 their means, more favors long captions."""
    repetition_penalty: float = Field(1.0, gt=0)
    """The score of a word piece that the caption already has is divided by this where positive, else multiplied
    (Keskar et al. 2019, sec. 4.1); 1 lets it be."""
    use_cache: bool = True
    """Whether to remember keys and values; without, the same captions take many times as long."""

    @rules
    def _lengths_and_beams_agree(self) -> Iterable[str | None]:
        if self.min_length > self.max_length:
            yield f"min_length: expected from 0 to max_length ({self.max_length}), got {self.min_length}"
        if self.num_return > self.num_beams:
            yield f"num_return: expected from 1 to num_beams ({self.num_beams}), got {self.num_return}"


@dataclass(frozen=True)
class GeneratedCaption:
    """A caption, and how sure the model is of it."""

    ids: list[int]
    """Its word pieces, without [CLS] and [SEP]; possibly none."""
    log_probability: float
    """Natural logarithm, summed over its word pieces and its [SEP], with penalties and exclusions applied."""
    confidence: float
    """exp of the mean log-probability of its word pieces and its [SEP], in [0, 1]."""
    score: float
    """By which captions of a clip are ordered; see GenerationConfig.length_penalty."""


@torch.no_grad()
def generate(
    model: AlbertForImageCaptioning,
    embedded: Tensor,
    video_valid: Tensor | None,
    config: GenerationConfig,
    vocabulary: CaptionVocabulary,
) -> list[list[GeneratedCaption]]:
    """embedded: (B, N, hidden_size), video_valid: (B, N) bool or None -> for each clip its num_return best captions,
    best first (fewer where the search met fewer).

    Beam search is Hugging Face's with its defaults: the 2 * num_beams best continuations of a clip's beams are looked
    at, among them [SEP] ends a caption if it is of the best num_beams, and the search ends when num_beams captions
    have ended and no beam scores better as it stands than the worst of them. Raises UserError for impossible
    settings and for a model whose scores are not finite, ValueError for a model in training mode.
    """
    _check(model, config)
    search = Search(model, embedded, video_valid, config, vocabulary)
    while search.advance():
        pass
    return [ended[: config.num_return] for ended in search.ended]


def _check(model: AlbertForImageCaptioning, config: GenerationConfig) -> None:
    positions = model.config.max_position_embeddings
    if config.max_length + 1 > positions:
        raise UserError(
            f"generation.max_length: with [CLS] the model has room for {positions - 1} words, got {config.max_length}"
        )
    if model.training:
        raise ValueError("in training mode dropout would choose the words; call model.eval() first")


class Search:
    """Beam search over a batch of clips. Clips that are done leave the batch as soon as that halves it."""

    def __init__(
        self,
        model: AlbertForImageCaptioning,
        embedded: Tensor,
        video_valid: Tensor | None,
        config: GenerationConfig,
        vocabulary: CaptionVocabulary,
    ):
        self.config, self.sep_id = config, vocabulary.sep_id
        num_clips, device = len(embedded), embedded.device
        self.ended: list[list[GeneratedCaption]] = [[] for _ in range(num_clips)]
        """For each clip the best captions that have ended, at most num_beams, best first."""
        self.clips = list(range(num_clips))
        """The clips in the batch, by row."""
        self.going = [True] * num_clips
        """Whether the search goes on, by row."""
        self.words = torch.full((num_clips, config.num_beams, 1), vocabulary.cls_id, device=device)
        self.totals = torch.full((num_clips, config.num_beams), float("-inf"), device=device)
        self.totals[:, 0] = 0.0  # log-probabilities; all beams are alike at first, so that one counts
        self.excluded = excluded_words(vocabulary, model.config.vocab_size, device)
        if config.use_cache:
            self.decoder: Decoder = CachedDecoder(
                model, embedded, video_valid, config.num_beams, config.max_length, vocabulary.mask_id
            )
        else:
            self.decoder = UncachedDecoder(model, embedded, video_valid, vocabulary.mask_id)

    def advance(self) -> bool:
        """Give every caption its next word; returns whether any goes on."""
        log_probabilities = self._next_log_probabilities()
        vocab_size, num_beams = log_probabilities.shape[-1], self.config.num_beams
        candidates = (self.totals[:, :, None] + log_probabilities).flatten(1)
        totals, index = candidates.topk(min(2 * num_beams, candidates.shape[1]))
        if totals.isnan().any():
            raise UserError(
                "generation: the model's scores of the next word are NaN, so its weights or its input are "
                "not finite; use an earlier checkpoint, or train again with a smaller learning rate"
            )
        beams, next_words = index // vocab_size, index % vocab_size
        is_last = self.words.shape[2] == self.config.max_length
        ends = torch.ones_like(next_words, dtype=torch.bool) if is_last else next_words == self.sep_id
        self._collect(totals[:, :num_beams], beams, next_words, ends)
        if is_last:
            return False
        running = ends.long().argsort(dim=1, stable=True)[:, :num_beams]  # the best that have not ended
        self._continue(totals.gather(1, running), beams.gather(1, running), next_words.gather(1, running))
        self._stop_rows()
        return any(self.going)

    def _next_log_probabilities(self) -> Tensor:
        """(rows, num_beams, vocab_size) float32, -inf for words that cannot come."""
        scores = self.decoder.step(self.words).float()
        penalty = self.config.repetition_penalty
        if penalty != 1:
            seen = scores.gather(2, self.words)
            scores = scores.scatter(2, self.words, torch.where(seen > 0, seen / penalty, seen * penalty))
        scores = scores.masked_fill(self.excluded, float("-inf"))
        if self.words.shape[2] - 1 < self.config.min_length:
            scores[:, :, self.sep_id] = float("-inf")
        return scores.log_softmax(-1)

    def _collect(self, totals: Tensor, beams: Tensor, next_words: Tensor, ends: Tensor) -> None:
        """Put captions that end among those that have ended. totals: (rows, num_beams), of the best candidates in
        order; the others have as many columns or more."""
        chosen = ends[:, : totals.shape[1]] & (totals > float("-inf"))
        for row, rank in chosen.nonzero().tolist():
            if not self.going[row]:
                continue
            ids = [*self.words[row, beams[row, rank], 1:].tolist(), int(next_words[row, rank])]
            total, length = float(totals[row, rank]), len(ids)
            ids = ids[:-1] if ids[-1] == self.sep_id else ids
            score = total / length**self.config.length_penalty
            ended = self.ended[self.clips[row]]
            ended.append(GeneratedCaption(ids, total, exp(total / length), score))
            ended.sort(key=lambda caption: -caption.score)
            del ended[self.config.num_beams :]

    def _continue(self, totals: Tensor, beams: Tensor, next_words: Tensor) -> None:
        """Each (rows, num_beams): go on with the words of `beams`, each with its next word."""
        index = beams[:, :, None].expand(-1, -1, self.words.shape[2])
        self.words = torch.cat([self.words.gather(1, index), next_words[:, :, None]], 2)
        self.totals = totals
        if self.config.num_beams > 1:
            self.decoder.reorder(beams)

    def _stop_rows(self) -> None:
        """Note which clips are done, and drop them where they are half of the batch or more."""
        length = self.words.shape[2] - 1
        best = (self.totals[:, 0] / length**self.config.length_penalty).tolist()
        for row, clip in enumerate(self.clips):
            ended = self.ended[clip]
            full = len(ended) == self.config.num_beams
            self.going[row] = self.going[row] and not (full and best[row] <= ended[-1].score)
        rows = [row for row, going in enumerate(self.going) if going]
        if rows and 2 * len(rows) <= len(self.clips):
            index = torch.tensor(rows, device=self.words.device)
            self.words, self.totals = self.words[index], self.totals[index]
            self.clips, self.going = [self.clips[row] for row in rows], [True] * len(rows)
            self.decoder.keep(index)


def excluded_words(vocabulary: CaptionVocabulary, vocab_size: int, device: torch.device) -> Tensor:
    """(vocab_size,) bool: the special word pieces but [SEP], and outputs that the tokenizer has no word for."""
    excluded = torch.arange(vocab_size, device=device) >= vocabulary.vocab_size
    excluded[sorted(vocabulary.special_ids)] = True
    excluded[vocabulary.sep_id] = False
    return excluded


class Decoder(Protocol):
    """The scores of next words; its methods are as CachedDecoder has them."""

    def step(self, words: Tensor) -> Tensor: ...

    def reorder(self, beams: Tensor) -> None: ...

    def keep(self, clips: Tensor) -> None: ...


class UncachedDecoder:
    """A Decoder that remembers nothing: each step is the model's whole forward pass, as in training."""

    def __init__(self, model: AlbertForImageCaptioning, embedded: Tensor, video_valid: Tensor | None, mask_id: int):
        self.model, self.embedded, self.video_valid, self.mask_id = model, embedded, video_valid, mask_id

    def step(self, words: Tensor) -> Tensor:
        ids = torch.cat([words, torch.full_like(words[:, :, :1], self.mask_id)], 2)
        targets = torch.zeros_like(ids, dtype=torch.bool)
        targets[:, :, -1] = True
        scores = self.model(ids, torch.ones_like(targets), self.embedded, self.video_valid, targets)
        return scores.view(*words.shape[:2], -1)

    def reorder(self, beams: Tensor) -> None:
        pass

    def keep(self, clips: Tensor) -> None:
        self.embedded = self.embedded[clips]
        self.video_valid = None if self.video_valid is None else self.video_valid[clips]
