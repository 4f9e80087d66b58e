"""ALBERT's tokenizer: unigram word pieces of sentencepiece (Kudo 2018), on text without case and accents.

It reads an official `spiece.model`, and trains one from texts.
"""

import io
import json
import logging
import unicodedata
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import sentencepiece
import torch

from mynah.utility.albert.encoding import SubwordTokenizer
from mynah.utility.albert.word_seeds import SPACE, without_seeds_path, word_seeds
from mynah.utility.albert.wordpiece import VOCAB_FILE, WordPieceTokenizer
from mynah.utility.errors import UserError

LOG = logging.getLogger("mynah.albert")
MODEL_FILE = "spiece.model"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL = {"pad_id": "<pad>", "unk_id": "<unk>", "cls_id": "[CLS]", "sep_id": "[SEP]", "mask_id": "[MASK]"}
MAX_TEXT_BYTES = 1 << 20


class AlbertTokenizer(SubwordTokenizer):
    """Over a sentencepiece model, whose pad, unk, [CLS], [SEP] and [MASK] may have any ids."""

    def __init__(self, proto: bytes, lower_case: bool = True, keep_accents: bool = False):
        """proto: the content of a `spiece.model`. Raises UserError if it is none, or of another kind of model."""
        self.proto, self.lower_case, self.keep_accents = proto, lower_case, keep_accents
        self.pieces = _processor(proto)
        self.vocab_size = self.pieces.get_piece_size()
        unknown = self.pieces.unk_id()
        for attribute, piece in SPECIAL.items():
            index = self.pieces.piece_to_id(piece)
            if index == unknown and attribute != "unk_id":
                raise UserError(f"a sentencepiece model without {piece}, so not one of ALBERT")
            setattr(self, attribute, index)

    @classmethod
    def from_file(cls, path: str | Path, lower_case: bool = True, keep_accents: bool = False) -> "AlbertTokenizer":
        """path: a `spiece.model`."""
        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected ALBERT's {MODEL_FILE}")
        try:
            return cls(path.read_bytes(), lower_case, keep_accents)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "AlbertTokenizer":
        """A unigram model of the texts, the same one for the same texts, with ids as the official ones' have:
        pad 0, unknown 1, [CLS] 2, [SEP] 3, [MASK] 4.

        A vocab_size larger than the texts have use for is lowered, with a line in the log. Raises UserError where
        it is too small for their characters, and for texts that hold none.
        """
        lines = [line for line in (normalize(text) for text in texts) if line]
        if not lines:
            raise UserError("no text to train a tokenizer from: every text is empty")
        proto = io.BytesIO()
        try:
            with word_seeds(lines) as seeds:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=iter(lines),
                    model_writer=proto,
                    model_type="unigram",
                    vocab_size=vocab_size,
                    hard_vocab_limit=False,
                    character_coverage=1.0,
                    max_sentence_length=MAX_TEXT_BYTES,
                    pad_id=0,
                    unk_id=1,
                    bos_id=-1,
                    eos_id=-1,
                    pad_piece=SPECIAL["pad_id"],
                    unk_piece=SPECIAL["unk_id"],
                    control_symbols=[SPECIAL["cls_id"], SPECIAL["sep_id"], SPECIAL["mask_id"]],
                    num_threads=1,  # the sums of several come in any order
                    minloglevel=2,
                    **seeds,
                )
        except (RuntimeError, OSError) as error:
            reason = str(error).rpartition("] ")[2]  # what sentencepiece says before it is about its source
            if "ncrease vocab_size" in reason:
                reason = "they have more different characters than that; give more word pieces (vocab_size)"
            raise UserError(f"no tokenizer of {vocab_size} word pieces from {len(lines)} texts: {reason}") from error
        tokenizer = cls(without_seeds_path(proto.getvalue()))
        if tokenizer.vocab_size < vocab_size:
            LOG.info(
                "the texts have use for %d word pieces, not for the %d asked for", tokenizer.vocab_size, vocab_size
            )
        return tokenizer

    def tokenize(self, text: str) -> list[str]:
        pieces = self.pieces.encode(self._normalized(text), out_type=str)
        return [one for piece in pieces for one in self._without_comma(piece)]

    def text_ids(self, text: str) -> list[int]:
        ids = [self.pieces.piece_to_id(piece) for piece in self.tokenize(text)]
        # Unknown characters in a row are one piece, which may be called as a special one is.
        return [self.unk_id if self.pieces.is_control(one) else one for one in ids]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        ids = self.check_ids(ids)
        special = self.special_ids
        if skip_special:
            return _single_spaced(self.pieces.decode([one for one in ids if one not in special]))
        runs = [(is_special, list(run)) for is_special, run in groupby(ids, special.__contains__)]
        names = [
            " ".join(map(self.pieces.id_to_piece, run)) if is_special else self.pieces.decode(run)
            for is_special, run in runs
        ]
        return _single_spaced(" ".join(names))

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": "sentencepiece",
            "proto": torch.frombuffer(bytearray(self.proto), dtype=torch.uint8),
            "lower_case": self.lower_case,
            "keep_accents": self.keep_accents,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "AlbertTokenizer":
        return cls(plain["proto"].numpy().tobytes(), plain["lower_case"], plain["keep_accents"])

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).write_bytes(self.proto)
        options = {"do_lower_case": self.lower_case, "keep_accents": self.keep_accents}
        content = {"tokenizer_class": "AlbertTokenizer", **options}
        (folder / TOKENIZER_CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _normalized(self, text: str) -> str:
        return normalize(text, self.lower_case, self.keep_accents)

    def _without_comma(self, piece: str) -> list[str]:
        """A number that ends in a comma is cut up anew without it, as the official tokenizer does."""
        if len(piece) < 2 or piece[-1] != "," or not piece[-2].isdigit():
            return [piece]
        number = self.pieces.encode(piece[:-1].replace(SPACE, ""), out_type=str)
        if not piece.startswith(SPACE) and number[0].startswith(SPACE):
            number = number[1:] if number[0] == SPACE else [number[0][1:], *number[1:]]
        return [*number, ","]


def normalize(text: str, lower_case: bool = True, keep_accents: bool = False) -> str:
    """Single spaces, plain double quotes, no accents (NFKD without its combining marks), lower case."""
    text = _single_spaced(text).replace("``", '"').replace("''", '"')
    if not keep_accents:
        text = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return text.lower() if lower_case else text


def load_tokenizer(folder: str | Path, lower_case: bool | None = None) -> SubwordTokenizer:
    """The tokenizer of a folder: ALBERT's with a `spiece.model`, BERT's with a `vocab.txt`.

    lower_case: None as its `tokenizer_config.json` has it, which where there is none is True. Raises UserError where
    neither file is there, or the file is not readable.
    """
    folder = Path(folder).expanduser()
    options = _read_options(folder / TOKENIZER_CONFIG)
    if lower_case is None:
        lower_case = bool(options.get("do_lower_case", True))
    if (folder / MODEL_FILE).is_file():
        keep_accents = bool(options.get("keep_accents", False))
        return AlbertTokenizer.from_file(folder / MODEL_FILE, lower_case, keep_accents)
    if (folder / VOCAB_FILE).is_file():
        accents = options.get("strip_accents")
        return WordPieceTokenizer.from_file(
            folder / VOCAB_FILE,
            lower_case,
            strip_accents=None if accents is None else bool(accents),
            chinese_apart=bool(options.get("tokenize_chinese_chars", True)),
        )
    raise UserError(f"{folder}: neither {MODEL_FILE} (ALBERT) nor {VOCAB_FILE} (BERT) there")


def tokenizer_from_plain(plain: dict[str, Any]) -> SubwordTokenizer:
    """The opposite of `to_plain`. Raises UserError for what is none of its results."""
    kinds = {"sentencepiece": AlbertTokenizer, "wordpiece": WordPieceTokenizer}
    kind = plain.get("kind") if isinstance(plain, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"a tokenizer of kind {kind!r}; known are {', '.join(kinds)}")
    try:
        return kinds[kind].from_plain(plain)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"a tokenizer of kind {kind!r} that lacks a part, or has another type there: {error}"
        ) from error


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


def _processor(proto: bytes) -> sentencepiece.SentencePieceProcessor:
    if not proto:  # sentencepiece takes this for a model to be loaded later
        raise UserError("not a sentencepiece model: it is empty")
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=proto)
    except RuntimeError as error:
        raise UserError(f"not a sentencepiece model ({len(proto)} bytes)") from error


def _read_options(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    return options if isinstance(options, dict) else {}
