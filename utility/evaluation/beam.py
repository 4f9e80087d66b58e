"""Beam search over CTC outputs, with a lexicon and a KenLM language model, by flashlight-text."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mynah.utility.errors import UserError
from mynah.utility.evaluation.ctc import BLANK, Decoded

BLANK_NAME = "<blank>"
IMPOSSIBLE = -1e4
"""A log probability; the search takes no infinite ones."""
INSTALL = "pip install flashlight-text"

log = logging.getLogger("mynah")


class BeamDecoder:
    """(B, N, C) log probabilities and (B,) lengths -> B of `Decoded`.

    symbols: of the outputs 1 to C - 1; `separator`, one of them, stands between words. lm: a KenLM file (ARPA or
    binary), "" for none: of words where there is a lexicon, else of symbols. lexicon: a file whose lines begin with a
    word, in upper or lower case as the language model has it; only these are said then, in upper case. Raises
    UserError for files that cannot be read, and without flashlight-text.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        separator: str,
        beam_size: int = 50,
        lm: str = "",
        lexicon: str = "",
        lm_weight: float = 2.0,
        word_score: float = 0.0,
    ):
        self.separator, self.ends_words = symbols.index(separator) + BLANK + 1, bool(lexicon)
        for key, file in (("lm", lm), ("lexicon", lexicon)):
            if file and not Path(file).expanduser().is_file():
                raise UserError(f"decoder.{key}: there is no file {file}")
        with tempfile.TemporaryDirectory(prefix="mynah-") as folder:
            spelling = Path(folder) / "lexicon.txt"
            if lexicon:
                spelling.write_text(_spell(lexicon, symbols, separator), encoding="utf-8")
            try:
                self.decoder = _builder()(
                    lexicon=str(spelling) if lexicon else None,
                    tokens=[BLANK_NAME, *symbols],
                    lm=str(Path(lm).expanduser()) if lm else None,
                    beam_size=beam_size,
                    lm_weight=lm_weight,
                    word_score=word_score,
                    blank_token=BLANK_NAME,
                    sil_token=separator,
                )
            except (RuntimeError, ValueError) as error:
                given = f" (decoder.lm={lm})" if lm else ""
                raise UserError(f"the beam search cannot be built{given}: {str(error).splitlines()[-1]}") from error

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[Decoded]:
        log_probs, lengths = log_probs.detach().float().cpu(), lengths.cpu()
        if self.ends_words:
            log_probs, lengths = self._closed(log_probs, lengths)
        return [self._decoded(each) for each in self.decoder(log_probs.contiguous(), lengths)]

    def _closed(self, log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """A position more, which is surely a separator: the search counts no word that none follows, and texts end
        without."""
        log_probs = F.pad(log_probs, (0, 0, 0, 1))
        rows = torch.arange(len(lengths))
        log_probs[rows, lengths] = IMPOSSIBLE
        log_probs[rows, lengths, self.separator] = 0.0
        return log_probs, lengths + 1

    def _decoded(self, hypotheses: Sequence[Any]) -> Decoded:
        if not hypotheses:  # a lexicon has no word that fits into so few positions
            return Decoded([], [])
        # The search runs from one separator before the first position to another after the last.
        tokens, positions = hypotheses[0].tokens.tolist(), (hypotheses[0].timesteps - 1).tolist()
        said = list(zip(tokens, positions, strict=True))
        while said and said[0][0] == self.separator:
            said.pop(0)
        while said and said[-1][0] == self.separator:
            said.pop()
        return Decoded([token for token, _ in said], [position for _, position in said])


def _builder() -> Any:
    try:
        from torchaudio.models.decoder import ctc_decoder
    except (RuntimeError, ImportError) as error:
        raise UserError(
            f"decoder.name=beam needs the package 'flashlight-text'; install it ({INSTALL}), or take "
            "decoder.name=greedy"
        ) from error
    return ctc_decoder


def _spell(lexicon: str, symbols: Sequence[str], separator: str) -> str:
    """A line for each word of the file that the symbols can spell: word, its symbols, the separator."""
    try:
        lines = Path(lexicon).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"decoder.lexicon: {lexicon} cannot be read as a list of words: {error}") from error
    words = dict.fromkeys(line.split()[0] for line in lines if line.strip())
    usable = [word for word in words if set(word.upper()) <= set(symbols) - {separator}]
    if not usable:
        raise UserError(f"decoder.lexicon: no line of {lexicon} begins with a word of the task's characters")
    if len(usable) < len(words):
        log.warning(
            "%d of %d words of %s have other characters; they are left out",
            len(words) - len(usable),
            len(words),
            lexicon,
        )
    return "".join(f"{word} {' '.join(word.upper())} {separator}\n" for word in usable)
