"""Lexicons of pronunciations, and SUPERB's phones."""

from pathlib import Path

from mynah.utility.errors import UserError

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "V", "W",
    "Y", "Z", "ZH",
)  # fmt: skip
SUPERB_PHONES = ["SIL", "SPN", *sorted([*(vowel + stress for vowel in VOWELS for stress in "012"), *CONSONANTS])]
"""ARPAbet with stress, silence and spoken noise, as SUPERB's phone recognition has them: 71."""


def read_lexicon(path: str) -> dict[str, str]:
    """{word in capitals: "PH PH ..."} of lines `WORD<tab>PH PH ...`; the first pronunciation of a word counts.

    Spaces instead of the tab will do, as in LibriSpeech's and CMU's files; lines that begin with ;;; are comments.
    Raises UserError, with the line's number, for a word without phones.
    """
    file = Path(path).expanduser()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"datarc.lexicon: there is no file {file}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"datarc.lexicon: {file} cannot be read: {error}") from error
    lexicon: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(";;;"):
            continue
        word, *phones = line.split()
        if not phones:
            raise UserError(f"{file}, line {number}: the word {word!r} has no phones; expected WORD<tab>PH PH ...")
        lexicon.setdefault(word.upper(), " ".join(phones))
    if not lexicon:
        raise UserError(f"datarc.lexicon: {file} is empty; expected lines WORD<tab>PH PH ...")
    return lexicon
