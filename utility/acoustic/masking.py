"""Masks of masked acoustic models, drawn per utterance.

One plan covers the four recipes: Audio ALBERT's single positions that are always zeroed (Chi et al. 2021,
sec. 3.1), Mockingjay's spans with the 80 / 10 / 10 rule (Liu et al. 2020, sec. 3.1), BERT's per-position rule, and
TERA's bands of frequency (Liu et al. 2021, sec. III-B).

A plan is drawn on the data side from that utterance's own random generator, so it depends neither on the batch the
utterance lands in, nor on the number of processes, nor on where a run was resumed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mynah.utility.configuration.sections import Section, one_of, rules

ZEROED = -1
MIN_PROPORTION = 0.001
RULES = ("utterance", "position")


class MaskingConfig(Section):
    """How much is masked, in which shapes, and what stands in its place."""

    mask_proportion: float = Field(0.15, ge=0, le=1)
    """Share of the positions of an utterance that are masked, on average where spans overlap; 0 masks none (useful
    with frequency bands)."""
    mask_consecutive_min: int = Field(1, ge=1)
    """Shortest span, in positions; the length is drawn once an utterance."""
    mask_consecutive_max: int = 1
    """Longest span, in positions."""
    mask_allow_overlap: bool = False
    """Whether spans may start anywhere, overlaps included, rather than on a grid of spans."""
    zero_probability: float = Field(1.0, ge=0, le=1)
    """Chance that masked positions are zeroed (BERT and Mockingjay: 0.8)."""
    replace_probability: float = Field(0.0, ge=0, le=1)
    """Chance that they show other positions of the utterance instead (0.1); what is left keeps its own content."""
    rule: Annotated[str, one_of(RULES)] = "utterance"
    """Whether the zero / replace / keep dice falls once an utterance (s3prl) or once a position (BERT)."""
    max_frequency_bins: int = Field(0, ge=0)
    """TERA: up to that many consecutive input bins are zeroed over the whole utterance; 0 leaves them be."""

    @rules
    def _something_is_masked(self) -> Iterable[str | None]:
        if self.mask_consecutive_min > self.mask_consecutive_max:
            yield (
                f"mask_consecutive_min: must be at most mask_consecutive_max ({self.mask_consecutive_max}), "
                f"got {self.mask_consecutive_min}"
            )
        if self.zero_probability + self.replace_probability > 1:
            yield "replace_probability: zero_probability + replace_probability is more than 1"
        if self.mask_proportion == 1 or 0 < self.mask_proportion < MIN_PROPORTION:
            yield (
                f"mask_proportion: must be 0, or from {MIN_PROPORTION} to below 1, so that something is masked and "
                f"something is left to tell it by; got {self.mask_proportion}"
            )
        if self.mask_proportion == 0 and self.max_frequency_bins == 0:
            yield "mask_proportion: with no positions and no frequency bins masked there is nothing to learn"


@dataclass
class MaskPlan:
    """What one utterance of N positions, or a padded batch of B, shows and is asked for."""

    target: Tensor
    """(N,) or (B, N) bool: positions whose reconstruction counts in the loss."""
    source: Tensor
    """(N,) or (B, N) int64: the position whose content is shown here; its own, another's, or ZEROED."""
    band: Tensor
    """(2,) or (B, 2) int64: first input bin that is zeroed, and the first after it; equal for none."""
    found: Tensor | None = None
    """`chosen`, of a batch: found before it goes to a GPU, which would have to be waited for to tell how many there
    are. None: not looked for yet."""
    whole: bool | None = None
    """Whether no position of a batch is padding; None: not known."""

    @property
    def chosen(self) -> Tensor:
        """(M,) int64: where `target` is true, in its flattened order."""
        return self.target.flatten().nonzero()[:, 0] if self.found is None else self.found

    @property
    def zeroed(self) -> Tensor:
        """(N,) or (B, N) bool: positions that show nothing because they are masked; padding is among them."""
        return self.source == ZEROED

    def to(self, device: torch.device) -> "MaskPlan":
        return self._with(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> "MaskPlan":
        """For the loader: the copies to a GPU are asynchronous from pinned memory alone."""
        return self._with(lambda part: part.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> "MaskPlan":
        parts = (self.target, self.source, self.band, self.chosen)
        return MaskPlan(*(change(part) for part in parts), self.whole)

    def show(self, x: Tensor) -> Tensor:
        """x: (B, N, S, D) true content, S frames a position -> what the model is shown, the same shape."""
        index = self.source.clamp(min=0)[:, :, None, None].expand_as(x)
        shown = x.gather(1, index).masked_fill_(self.zeroed[:, :, None, None], 0.0)
        bins = torch.arange(x.shape[-1], device=x.device)
        in_band = (bins >= self.band[:, :1]) & (bins < self.band[:, 1:])
        return shown.masked_fill_(in_band[:, None, None, :], 0.0)


def draw_mask_plan(
    num_positions: int, num_bins: int, config: MaskingConfig, generator: np.random.Generator
) -> MaskPlan:
    """The plan of one utterance of `num_positions` positions and `num_bins` input bins."""
    chosen = _choose_positions(num_positions, config, generator)
    target = np.zeros(num_positions, dtype=bool)
    target[chosen] = True
    masked = np.flatnonzero(target)

    source = np.arange(num_positions)
    dice = generator.random(len(masked) if config.rule == "position" else 1)
    zeroed = np.broadcast_to(dice < config.zero_probability, masked.shape)
    replaced = np.broadcast_to(dice < config.zero_probability + config.replace_probability, masked.shape)
    others = generator.integers(num_positions, size=len(masked))
    source[masked] = np.where(zeroed, ZEROED, np.where(replaced, others, masked))

    width = int(generator.integers(min(config.max_frequency_bins, num_bins) + 1))
    first = int(generator.integers(num_bins - width + 1))
    if width:
        target[:] = True  # with a band gone every position has something to reconstruct, as in TERA
    return MaskPlan(
        torch.from_numpy(target), torch.from_numpy(source), torch.tensor([first, first + width], dtype=torch.int64)
    )


def batch_mask_plans(plans: Sequence[MaskPlan]) -> MaskPlan:
    """Plans of utterances of different lengths -> one padded plan; padding is no target and shows zero."""
    target = pad_sequence([plan.target for plan in plans], batch_first=True)
    return MaskPlan(
        target=target,
        source=pad_sequence([plan.source for plan in plans], batch_first=True, padding_value=ZEROED),
        band=torch.stack([plan.band for plan in plans]),
        found=target.flatten().nonzero()[:, 0],
        whole=len({len(plan.target) for plan in plans}) == 1,
    )


def _choose_positions(num_positions: int, config: MaskingConfig, generator: np.random.Generator) -> np.ndarray:
    """Indices to mask: as many spans as come nearest to the proportion, at least one if it is above zero."""
    if config.mask_proportion == 0:
        return np.empty(0, dtype=np.int64)
    span = int(generator.integers(config.mask_consecutive_min, config.mask_consecutive_max + 1))
    span = min(span, num_positions)
    if config.mask_allow_overlap:
        count = _count_overlapping(num_positions, span, config.mask_proportion)
        starts = generator.permutation(num_positions - span + 1)[:count]
    else:
        count = max(1, round(num_positions * config.mask_proportion / span))
        offset = int(generator.integers(num_positions % span + 1))
        starts = generator.permutation(num_positions // span)[:count] * span + offset
    return (starts[:, None] + np.arange(span)).ravel()


def _count_overlapping(num_positions: int, span: int, proportion: float) -> int:
    """How many spans that start anywhere cover this proportion on average; at least one.

    A position stays open if none of the `span` starts is drawn that would cover it, each of which is with the same
    chance; at the ends of the utterance there are fewer.
    """
    return max(1, round((num_positions - span + 1) * (1 - (1 - proportion) ** (1 / span))))
