"""BERT's tokenizer: words and punctuation, then the longest word pieces (Devlin et al. 2019; Wu et al. 2016)."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from mynah.utility.albert.encoding import SubwordTokenizer
from mynah.utility.errors import UserError

VOCAB_FILE = "vocab.txt"
SPECIAL = {"pad_id": "[PAD]", "unk_id": "[UNK]", "cls_id": "[CLS]", "sep_id": "[SEP]", "mask_id": "[MASK]"}
CONTINUES = "##"
# Punctuation as it is written; as words, marks stand apart.
ATTACHED = {" .": ".", " ,": ",", " !": "!", " ?": "?", " ' ": "'"}


class WordPieceTokenizer(SubwordTokenizer):
    """Over the word pieces of a `vocab.txt`."""

    def __init__(
        self,
        vocabulary: Sequence[str],
        lower_case: bool = True,
        strip_accents: bool | None = None,
        chinese_apart: bool = True,
    ):
        """vocabulary: the word pieces in the order of their ids. strip_accents: whether accents are taken off; None
        for as lower_case says. chinese_apart: whether each Chinese character is a word.

        Raises UserError where a special one is missing.
        """
        self.strip_accents, self.chinese_apart = strip_accents, chinese_apart
        self.vocabulary, self.lower_case = list(vocabulary), lower_case
        self.vocab_size = len(self.vocabulary)
        self.index = {piece: index for index, piece in enumerate(self.vocabulary)}
        for attribute, piece in SPECIAL.items():
            if piece not in self.index:
                raise UserError(f"a vocabulary of {self.vocab_size} word pieces without {piece}, so not one of BERT")
            setattr(self, attribute, self.index[piece])
        self.cutter = Tokenizer(WordPiece(self.index, unk_token=SPECIAL["unk_id"], max_input_chars_per_word=100))
        self.cutter.normalizer = BertNormalizer(
            lowercase=lower_case, strip_accents=strip_accents, handle_chinese_chars=chinese_apart
        )
        self.cutter.pre_tokenizer = BertPreTokenizer()

    @classmethod
    def from_file(cls, path: str | Path, lower_case: bool = True, **options: Any) -> "WordPieceTokenizer":
        """path: a `vocab.txt`, a word piece a line. options: as the class takes them."""
        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected BERT's {VOCAB_FILE}")
        try:
            with path.open(encoding="utf-8", newline="\n") as file:
                return cls([line.rstrip("\r\n") for line in file], lower_case, **options)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text, so not BERT's {VOCAB_FILE}") from error
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def tokenize(self, text: str) -> list[str]:
        return self.cutter.encode(text, add_special_tokens=False).tokens

    def text_ids(self, text: str) -> list[int]:
        return self.cutter.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        ids, special = self.check_ids(ids), self.special_ids
        pieces = [self.vocabulary[one] for one in ids if not (skip_special and one in special)]
        text = " ".join(pieces).replace(f" {CONTINUES}", "").removeprefix(CONTINUES)
        for apart, together in ATTACHED.items():
            text = text.replace(apart, together)
        return text

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": "wordpiece",
            "vocabulary": self.vocabulary,
            "lower_case": self.lower_case,
            "strip_accents": self.strip_accents,
            "chinese_apart": self.chinese_apart,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "WordPieceTokenizer":
        own = {key: plain[key] for key in ("strip_accents", "chinese_apart") if key in plain}  # not in older ones
        return cls(plain["vocabulary"], plain["lower_case"], **own)

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VOCAB_FILE).write_text("".join(f"{piece}\n" for piece in self.vocabulary), encoding="utf-8")
        content = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.lower_case,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.chinese_apart,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
