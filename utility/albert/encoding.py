"""Base of ALBERT's and BERT's tokenizers: special word pieces, pairs, truncation, batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Encoding:
    """A text, or a pair of them, as a model reads it."""

    ids: list[int]
    """[CLS] text [SEP], or [CLS] text [SEP] pair [SEP]."""
    type_ids: list[int]
    """Segment of each: 0, and 1 for the pair and its [SEP]."""


class SubwordTokenizer(ABC):
    """Text <-> word pieces <-> ids. A subclass sets the ids, and says how a text is cut up and put together.

    Text is text: "[MASK]" in it is cut up as anything else, so that no text can smuggle in a special word piece.
    """

    vocab_size: int
    """Word pieces, special ones included; ids are below it."""
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    @property
    def special_ids(self) -> frozenset[int]:
        """Padding, unknown, [CLS], [SEP] and [MASK]: what stands for no text."""
        return frozenset((self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id))

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        padding: bool = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
    ) -> dict[str, Any]:
        """As Hugging Face's tokenizers are called: {"input_ids", "token_type_ids", "attention_mask"}.

        Each a list for one text, a list of lists for several, and with return_tensors="pt" an int64 tensor (B, N),
        which takes padding=True unless all are of one length. The models take them as they are: `model(**batch)`.
        truncation: to max_length. Raises ValueError for another value of return_tensors and for texts and pairs of
        different number.
        """
        if return_tensors not in (None, "pt"):
            raise ValueError(f"return_tensors: expected 'pt' or None, got {return_tensors!r}")
        if truncation and max_length is None:
            raise ValueError("truncation=True needs max_length")
        single = isinstance(text, str)
        texts = [text] if single else list(text)
        pairs = [text_pair] * len(texts) if text_pair is None or isinstance(text_pair, str) else list(text_pair)
        if len(texts) != len(pairs) or (isinstance(text_pair, str) and not single):
            raise ValueError(f"{len(texts)} texts, but {len(pairs)} pairs for them")
        limit = max_length if truncation else None
        encodings = [self.encode(*pair, max_length=limit) for pair in zip(texts, pairs, strict=True)]
        longest = max((len(encoding.ids) for encoding in encodings), default=0) if padding else 0
        batch: dict[str, Any] = {"input_ids": [], "token_type_ids": [], "attention_mask": []}
        for encoding in encodings:
            missing = max(longest - len(encoding.ids), 0)
            batch["input_ids"].append(encoding.ids + [self.pad_id] * missing)
            batch["token_type_ids"].append(encoding.type_ids + [0] * missing)
            batch["attention_mask"].append([1] * len(encoding.ids) + [0] * missing)
        if return_tensors == "pt":
            if len({len(ids) for ids in batch["input_ids"]}) > 1:
                raise ValueError("texts of different lengths make no tensor; give padding=True")
            return {name: torch.tensor(rows, dtype=torch.int64) for name, rows in batch.items()}
        return {name: rows[0] for name, rows in batch.items()} if single else batch

    def encode(self, text: str, pair: str | None = None, max_length: int | None = None) -> Encoding:
        """max_length: of the whole, special word pieces included; the longer of a pair is shortened first, at its
        end. Raises ValueError for a max_length without room for the special ones.
        """
        first = self.text_ids(text)
        second = None if pair is None else self.text_ids(pair)
        if max_length is not None:
            room = max_length - (2 if second is None else 3)
            if room < 0:
                raise ValueError(f"max_length {max_length} has no room for the special word pieces")
            kept_first, kept_second = kept_lengths(len(first), len(second or ()), room)
            first, second = first[:kept_first], second and second[:kept_second]
        ids = [self.cls_id, *first, self.sep_id]
        tail = [] if second is None else [*second, self.sep_id]
        return Encoding(ids + tail, [0] * len(ids) + [1] * len(tail))

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """A text's word pieces, without special ones."""

    @abstractmethod
    def text_ids(self, text: str) -> list[int]:
        """The ids of a text's word pieces, without special ones; unk_id for what is in no word piece."""

    @abstractmethod
    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of word pieces; unless skipped, special ones stand in it by their names.

        Raises ValueError for an id that is not below vocab_size.
        """

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Everything, as plain values and uint8 tensors, for checkpoints; see `tokenizer_from_plain`."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the vocabulary's file and `tokenizer_config.json`, as Hugging Face reads them."""

    def check_ids(self, ids: Iterable[int]) -> list[int]:
        """The ids as a list; ValueError if one is none of the vocabulary's."""
        ids = [int(one) for one in ids]
        wrong = [one for one in ids if not 0 <= one < self.vocab_size]
        if wrong:
            raise ValueError(f"id {wrong[0]} is not one of the {self.vocab_size} word pieces")
        return ids


def kept_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """How much of two texts of these lengths is kept, `room` in all: the longer is shortened until they are alike.

    Both are then shortened by turns. An odd one over goes to the longer; of two equally long, to the second.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)
