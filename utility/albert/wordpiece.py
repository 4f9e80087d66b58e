"""BERT's tokenizer: words and punctuation, then the longest word pieces (Devlin et al. 2019; Wu et al. 2016)."""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mynah.utility.albert.encoding import SubwordTokenizer
from mynah.utility.errors import UserError

VOCAB_FILE = "vocab.txt"
SPECIAL = {"pad_id": "[PAD]", "unk_id": "[UNK]", "cls_id": "[CLS]", "sep_id": "[SEP]", "mask_id": "[MASK]"}
CONTINUES = "##"
MAX_WORD_CHARACTERS = 100
# Punctuation as it is written; as words, marks stand apart.
ATTACHED = {" .": ".", " ,": ",", " !": "!", " ?": "?", " ' ": "'"}
# Chinese characters and their like, each a word of its own; Japanese kana and Korean hangul are not among them.
IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class WordPieceTokenizer(SubwordTokenizer):
    """Over the word pieces of a `vocab.txt`."""

    def __init__(self, vocabulary: Sequence[str], lower_case: bool = True):
        """vocabulary: the word pieces in the order of their ids. lower_case: also takes accents off.

        Raises UserError where a special one is missing.
        """
        self.vocabulary, self.lower_case = list(vocabulary), lower_case
        self.vocab_size = len(self.vocabulary)
        self.index = {piece: index for index, piece in enumerate(self.vocabulary)}
        for attribute, piece in SPECIAL.items():
            if piece not in self.index:
                raise UserError(f"a vocabulary of {self.vocab_size} word pieces without {piece}, so not one of BERT")
            setattr(self, attribute, self.index[piece])

    @classmethod
    def from_file(cls, path: str | Path, lower_case: bool = True) -> "WordPieceTokenizer":
        """path: a `vocab.txt`, a word piece a line."""
        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected BERT's {VOCAB_FILE}")
        try:
            with path.open(encoding="utf-8", newline="\n") as file:
                return cls([line.rstrip("\r\n") for line in file], lower_case)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text, so not BERT's {VOCAB_FILE}") from error
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def tokenize(self, text: str) -> list[str]:
        return [piece for word in split_words(text, self.lower_case) for piece in self._pieces(word)]

    def text_ids(self, text: str) -> list[int]:
        return [self.index[piece] for piece in self.tokenize(text)]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        ids, special = self.check_ids(ids), self.special_ids
        pieces = [self.vocabulary[one] for one in ids if not (skip_special and one in special)]
        text = " ".join(pieces).replace(f" {CONTINUES}", "").removeprefix(CONTINUES)
        for apart, together in ATTACHED.items():
            text = text.replace(apart, together)
        return text

    def to_plain(self) -> dict[str, Any]:
        return {"kind": "wordpiece", "vocabulary": self.vocabulary, "lower_case": self.lower_case}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "WordPieceTokenizer":
        return cls(plain["vocabulary"], plain["lower_case"])

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VOCAB_FILE).write_text("".join(f"{piece}\n" for piece in self.vocabulary), encoding="utf-8")
        content = {"tokenizer_class": "BertTokenizer", "do_lower_case": self.lower_case}
        (folder / "tokenizer_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _pieces(self, word: str) -> list[str]:
        """The longest known beginning, again and again; one unknown for a word that cannot be had so."""
        unknown = [SPECIAL["unk_id"]]
        if len(word) > MAX_WORD_CHARACTERS:
            return unknown
        pieces, start = [], 0
        while start < len(word):
            prefix = CONTINUES if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.index), None)
            if end is None:
                return unknown
            pieces.append(prefix + word[start:end])
            start = end
        return pieces


def split_words(text: str, lower_case: bool) -> Iterator[str]:
    """Words, and each punctuation mark and ideograph as a word; control characters are dropped."""
    text = "".join(_spaced(character) for character in text)
    if lower_case:
        text = unicodedata.normalize("NFD", text.lower())
        text = "".join(character for character in text if unicodedata.category(character) != "Mn")
    for word in text.split():
        start = 0
        for position, character in enumerate(word):
            if is_punctuation(character):
                if start < position:
                    yield word[start:position]
                yield character
                start = position + 1
        if start < len(word):
            yield word[start:]


def _spaced(character: str) -> str:
    """A character as the words are split from: "" to drop it, between spaces to make it a word."""
    code = ord(character)
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if code in (0, 0xFFFD) or unicodedata.category(character).startswith("C"):
        return ""
    if any(first <= code <= last for first, last in IDEOGRAPHS):
        return f" {character} "
    return character


def is_punctuation(character: str) -> bool:
    """Unicode's punctuation, and every ASCII character that is neither letter, digit nor space, such as $ and ^."""
    ascii_mark = "!" <= character <= "~" and not character.isalnum()
    return ascii_mark or unicodedata.category(character).startswith("P")
