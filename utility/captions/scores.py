"""Scores of captions against references: BLEU, METEOR, ROUGE-L and CIDEr, as pycocoevalcap computes them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mynah.utility.captions.java import JavaFailed, meteor, ptb_tokenize
from mynah.utility.errors import UserError

PTB = "PTB (Stanford CoreNLP 3.4.1)"
PLAIN = "plain words (lower case, no punctuation)"
CHARACTERS = "characters"

# What the PTB tokenizer makes of plain English: "the dog's tail, isn't it" -> the dog 's tail is n't it
PLAIN_WORD = re.compile(r"\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+")
# A Chinese character is a token, and so is a word or number of other scripts.
CHARACTER = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W\u3400-\u9fff\uf900-\ufaff]+")

EMPTY_REFERENCE = "qzxqzxqzx"  # a word that METEOR does not take apart, and nobody says


@dataclass(frozen=True)
class ScoreReport:
    """scores: of all clips, by name (BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr); per_clip: {clip: {name: score}}.

    CIDEr is from 0 to 10, the others from 0 to 1. tokenizer: PTB, PLAIN or CHARACTERS; scores compare only where it
    is the same. left_out: why a score is not there.
    """

    scores: dict[str, float]
    per_clip: dict[str, dict[str, float]]
    tokenizer: str
    left_out: dict[str, str]


def caption_scores(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    language: str = "en",
    java: bool = True,
) -> ScoreReport:
    """Scores of one prediction a clip against the clip's references.

    predictions: {clip: caption}, captions may be empty; references: {clip: one or more captions} of those clips.
    language: "en", or "zh", which is cut into characters and has no METEOR. Where Java cannot run, a plain tokenizer
    takes the place of PTB's, and METEOR is left out; so it is, and in no time, with java False.
    Raises UserError without the package pycocoevalcap, ValueError for no predictions or a clip without references.
    """
    if not predictions:
        raise ValueError("no predictions to score")
    if without := [clip for clip in predictions if not references.get(clip)]:
        raise ValueError(f"no references for {', '.join(without[:5])}")
    left_out: dict[str, str] = {}
    spoken = {  # in one line each, as the scorers take them: " ".join also of U+2028, at which Java begins a line
        clip: [" ".join(text.split()) for text in (predictions[clip], *references[clip])] for clip in predictions
    }
    tokenized, tokenizer = _tokenize(spoken, language, java, left_out)
    said = {clip: [texts[0]] for clip, texts in tokenized.items()}
    right = {clip: [text for text in texts[1:] if text] or [EMPTY_REFERENCE] for clip, texts in tokenized.items()}
    columns = _overlap_scores(said, right, left_out)
    if not left_out.get("METEOR"):
        try:
            columns["METEOR"] = meteor([said[clip][0] for clip in said], [right[clip] for clip in said])
        except JavaFailed as error:
            left_out["METEOR"] = str(error)
    per_clip = {
        clip: {name: float(each[index]) for name, (_, each) in columns.items()} for index, clip in enumerate(said)
    }
    return ScoreReport({name: float(score) for name, (score, _) in columns.items()}, per_clip, tokenizer, left_out)


def collapse(predictions: Mapping[str, str]) -> float:
    """The share of the most frequent caption, from 0 to 1; near 1 the model says the same of every clip."""
    counts = Counter(" ".join(caption.lower().split()) for caption in predictions.values())
    return max(counts.values()) / len(predictions) if predictions else 0.0


def plain_tokenize(caption: str) -> str:
    """Lower-case words without punctuation, joined by spaces; endings such as 's and n't are words of their own."""
    return " ".join(PLAIN_WORD.findall(caption.lower().replace("’", "'")))


def character_tokenize(caption: str) -> str:
    """Chinese characters, and words of other scripts in lower case, without punctuation, joined by spaces."""
    return " ".join(CHARACTER.findall(caption.lower()))


def _tokenize(
    spoken: Mapping[str, Sequence[str]], language: str, java: bool, left_out: dict[str, str]
) -> tuple[dict[str, list[str]], str]:
    """({clip: its captions tokenized}, by which tokenizer); notes in left_out why METEOR cannot be had."""
    captions = [caption for texts in spoken.values() for caption in texts]
    if language == "zh":
        left_out["METEOR"] = "it has no Chinese"
        tokens, tokenizer = list(map(character_tokenize, captions)), CHARACTERS
    elif not java:
        left_out["METEOR"] = "it was not asked for"
        tokens, tokenizer = list(map(plain_tokenize, captions)), PLAIN
    else:
        try:
            tokens, tokenizer = ptb_tokenize(captions), PTB
        except ImportError as error:
            raise _not_installed() from error
        except JavaFailed as error:
            left_out["METEOR"] = str(error)
            tokens, tokenizer = list(map(plain_tokenize, captions)), PLAIN
    following = iter(tokens)
    return {clip: [next(following) for _ in texts] for clip, texts in spoken.items()}, tokenizer


def _overlap_scores(
    said: dict[str, list[str]], right: dict[str, list[str]], left_out: dict[str, str]
) -> dict[str, tuple[float, Sequence[float]]]:
    """{name: (score, score of each clip)} of what needs no Java."""
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise _not_installed() from error
    scores, each = Bleu(4).compute_score(right, said, verbose=0)
    columns = {f"BLEU-{n}": (scores[n - 1], each[n - 1]) for n in (1, 2, 3, 4)}
    columns["ROUGE-L"] = Rouge().compute_score(right, said)
    if len(said) > 1:
        columns["CIDEr"] = Cider().compute_score(right, said)
    else:
        left_out["CIDEr"] = "it weighs words by how few clips they occur in, so needs two clips or more"
    return columns


def _not_installed() -> UserError:
    return UserError(
        "scores of captions need the package pycocoevalcap, which is not installed; pip install pycocoevalcap"
    )
