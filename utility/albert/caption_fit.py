"""Whether word pieces and captions belong together."""

import logging
from collections.abc import Sequence

from mynah.utility.albert.encoding import SubwordTokenizer

log = logging.getLogger("mynah")

LOOKED_AT = 5000
"""Captions that are enough to tell."""
TOLERATED = 0.1
"""Up to this share of word pieces may be unknown, and of captions be too long, without a word."""


def warn_of_misfit(tokenizer: SubwordTokenizer, captions: Sequence[str], max_length: int, remedy: str) -> None:
    """Say where a tokenizer does not know what captions are written in, or `max_length` cuts many of them off.

    max_length: word pieces with [CLS] and [SEP]. remedy: how to have another tokenizer.
    """
    looked_at = captions[:: max(1, len(captions) // LOOKED_AT)]
    encoded = [tokenizer.text_ids(caption) for caption in looked_at]
    pieces = [piece for ids in encoded for piece in ids]
    unknown = sum(piece == tokenizer.unk_id for piece in pieces) / max(1, len(pieces))
    if unknown > TOLERATED:
        example = next(text for text, ids in zip(looked_at, encoded, strict=True) if tokenizer.unk_id in ids)
        log.warning(
            "the tokenizer does not know %.0f %% of the training captions' pieces, such as in %r: it is of another "
            "language or alphabet; %s",
            *(100 * unknown, example, remedy),
        )
    cut = sum(len(ids) + 2 > max_length for ids in encoded) / max(1, len(encoded))
    if cut > TOLERATED:
        log.warning(
            "masking.max_length: %d word pieces cut %.0f %% of the training captions off", max_length, 100 * cut
        )
