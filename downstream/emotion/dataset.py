"""Corpora of emotions in their official layouts, told apart by their names: IEMOCAP, RAVDESS, CREMA-D, EmoDB.

All are divided into five folds, so that no speaker of a fold's test split is in its training.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from mynah.downstream.classification import Labelled
from mynah.downstream.speech import SpeechDataConfig, scan_speech
from mynah.utility.audio.corpus import Utterance
from mynah.utility.data.splits import hash_fraction
from mynah.utility.errors import UserError

FOLDS = 5
IEMOCAP_DEV_SHARE = 0.2


class EmotionDataConfig(SpeechDataConfig):
    """Where the utterances are and how they are read."""

    file_path: str = ""
    """The folder of one of LAYOUTS; "" for none."""
    fold: int = Field(1, ge=1, le=FOLDS)
    """Which fold is tested; the result of a corpus is the mean over all five."""


@dataclass(frozen=True)
class Acted:
    """What a file's name says: who speaks, and which emotion; None for one that is not among the classes."""

    speaker: str
    emotion: str | None


def _by_pattern(pattern: str, emotions: dict[str, str]) -> Callable[[Utterance], Acted | None]:
    """A reader of names with the groups `speaker` and `emotion`; None for a name of another form."""
    expression = re.compile(pattern, re.IGNORECASE)

    def read(utterance: Utterance) -> Acted | None:
        found = expression.fullmatch(Path(utterance.name).stem)
        if found is None or found["emotion"].upper() not in emotions:
            return None
        return Acted(found["speaker"], emotions[found["emotion"].upper()])

    return read


RAVDESS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful", "07": "disgusted",
    "08": "surprised",
}  # fmt: skip
CREMAD = {"ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
EMODB = {
    "W": "angry", "L": "bored", "E": "disgusted", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral",
}  # fmt: skip
IEMOCAP = {"neu": "neutral", "hap": "happy", "exc": "happy", "ang": "angry", "sad": "sad"}
"""The four classes of SUPERB: excitement counts as happiness, other labels are left out (5531 utterances)."""

LAYOUTS = {
    "RAVDESS": _by_pattern(r"03-01-(?P<emotion>\d\d)-\d\d-\d\d-\d\d-(?P<speaker>\d\d)", RAVDESS),
    "CREMA-D": _by_pattern(r"(?P<speaker>\d{4})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_[A-Z]{2}", CREMAD),
    "EmoDB": _by_pattern(r"(?P<speaker>\d\d)[ab]\d\d(?P<emotion>[A-Z])[a-z]?", EMODB),
}
"""Corpus -> the reader of its file names. IEMOCAP is known by its folders."""


def read_emotions(config: EmotionDataConfig, log_path: Path | None) -> dict[str, list[Labelled]]:
    """{split: [(utterance, emotion), ...]} of the chosen fold.

    log_path: where skipped files are named. Raises UserError for a folder that is none of these corpora, or one of
    fewer than five speakers.
    """
    folder = Path(config.file_path).expanduser().absolute()
    found = scan_speech({"emotions": folder}, config, log_path)
    if any(folder.glob("Session[1-5]/dialog/EmoEvaluation/*.txt")):
        return _iemocap(folder, found, config.fold)
    acted = {name: {each: who for each in found if (who := read(each))} for name, read in LAYOUTS.items()}
    name = max(acted, key=lambda each: len(acted[each]))
    if not acted[name]:
        raise UserError(
            f"{folder}: none of {len(found)} files is called as in {', '.join(LAYOUTS)}, and there is no "
            "Session1/dialog/EmoEvaluation as in IEMOCAP; such as "
            f"{found[0].name}. For labels of your own there is -d example"
        )
    return _by_speaker(acted[name], config.fold, f"{name} in {folder}")


def _by_speaker(acted: dict[Utterance, Acted], fold: int, where: str) -> dict[str, list[Labelled]]:
    """Every fifth speaker is tested, and those after them are dev."""
    speakers = sorted({each.speaker for each in acted.values()})
    if len(speakers) < FOLDS:
        raise UserError(f"{where}: has {len(speakers)} speakers; five folds need at least {FOLDS}")
    fold_of = {speaker: number % FOLDS + 1 for number, speaker in enumerate(speakers)}
    splits: dict[str, list[Labelled]] = {"train": [], "dev": [], "test": []}
    for utterance, each in acted.items():
        distance = (fold_of[each.speaker] - fold) % FOLDS
        splits[{0: "test", 1: "dev"}.get(distance, "train")].append((utterance, each.emotion))
    return splits


def _iemocap(folder: Path, found: list[Utterance], fold: int) -> dict[str, list[Labelled]]:
    """Session `fold` is tested; a fifth of the other utterances, chosen by their names, is dev."""
    line = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(?P<name>Ses\w+)\s+(?P<emotion>\w+)\s+\[.*")
    emotions = {}
    for path in sorted(folder.glob("Session[1-5]/dialog/EmoEvaluation/*.txt")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        matches = (line.match(each) for each in text.splitlines())
        emotions |= {
            match["name"]: IEMOCAP[match["emotion"]] for match in matches if match and match["emotion"] in IEMOCAP
        }
    splits: dict[str, list[Labelled]] = {"train": [], "dev": [], "test": []}
    for utterance in found:
        session, *inner, file_name = utterance.name.split("/")
        emotion = emotions.get(Path(file_name).stem)
        if emotion is None or inner[:2] != ["sentences", "wav"]:
            continue
        is_dev = hash_fraction(file_name) < IEMOCAP_DEV_SHARE
        split = "test" if session == f"Session{fold}" else "dev" if is_dev else "train"
        splits[split].append((utterance, emotion))
    return splits
