"""Speech Commands (Warden 2018) as it comes: a folder for each word, one for noises, and the separate test set."""

import logging
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from mynah.downstream.classification import Labelled, balanced
from mynah.downstream.speech import SpeechDataConfig, scan_speech
from mynah.utility.configuration.sections import rules
from mynah.utility.data.splits import name_percentage
from mynah.utility.errors import UserError

WORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
UNKNOWN, SILENCE = "_unknown_", "_silence_"
NOISES = "_background_noise_"
TEST_SETS = ("speech_commands_test_set_v0.01", "speech_commands_test_set_v0.02")

log = logging.getLogger("mynah")


class CommandsDataConfig(SpeechDataConfig):
    """Where the words are and how they are read."""

    file_path: str = ""
    """The folder that holds a folder for each word; "" for none."""
    test_path: str = ""
    """The separate test set; "" takes speech_commands_test_set_v0.01 (or 2) beside file_path, and without one the
    test share of file_path itself, as Speech Commands' own lists do."""
    words: list[str] = WORDS
    """The words to tell apart; all others are `_unknown_`. [] makes every folder a class of its own."""
    balanced: bool = True
    """Let every class be as frequent in training, as SUPERB's sampler does."""
    max_timestep: int | None = Field(16000, ge=1)
    """Samples at 16 kHz; from longer files, the noises, a crop of this length is taken: at random in training."""

    @rules
    def _words_are_folders(self) -> Iterable[str | None]:
        if len(set(self.words)) < len(self.words):
            yield "words: a word is listed twice"
        if wrong := [word for word in self.words if not word or "/" in word or word.startswith("_")]:
            yield f"words: {wrong[0]!r} is no word"


def read_commands(config: CommandsDataConfig, log_path: Path | None) -> dict[str, list[Labelled]]:
    """{split: [(utterance, label), ...]}.

    Speakers are divided by the hash of their name: a tenth dev, a tenth test (left out where there is a separate test
    set), the rest train. The noises are `_silence_` in train and dev. log_path: where skipped files are named.
    Raises UserError where a folder or every word is missing.
    """
    folder = Path(config.file_path).expanduser().absolute()
    test_folder = _test_folder(folder, config.test_path)
    scanned = scan_speech({"commands": folder} | ({"test": test_folder} if test_folder else {}), config, log_path)
    splits: dict[str, list[Labelled]] = {"train": [], "dev": [], "test": []}
    for utterance in scanned:
        folder_name, _, file_name = utterance.name.rpartition("/")
        if not folder_name or "/" in folder_name:
            continue
        if utterance.corpus == "test":
            splits["test"].append((utterance, _label(folder_name, config.words)))
        elif folder_name == NOISES:
            splits["train"].append((utterance, SILENCE))
            splits["dev"].append((utterance, SILENCE))
        else:
            percentage = name_percentage(file_name)
            split = "dev" if percentage < 10 else "test" if percentage < 20 else "train"
            if split != "test" or test_folder is None:
                splits[split].append((utterance, _label(folder_name, config.words)))
    found = {label for split in splits.values() for _, label in split}
    if config.words and not {label for _, label in splits["train"]} & set(config.words):
        words = ", ".join(config.words[:5]) + (", ..." if len(config.words) > 5 else "")
        raise UserError(
            f"{folder}: has none of the words {words} in folders of their names; give "
            "datarc.file_path the folder of Speech Commands, or datarc.words the words that it has"
        )
    if missing := [word for word in config.words if word not in found]:
        log.warning("%s: has no folder with %s of datarc.words; goes on without", folder, ", ".join(missing))
    if {label for _, label in splits["dev"]} == {SILENCE}:  # no words to choose a checkpoint by
        splits["dev"] = []
    return splits if not config.balanced else {**splits, "train": balanced(splits["train"])}


def class_names(found: Iterable[str], words: list[str]) -> list[str]:
    """The labels that were found, in SUPERB's order: the words as listed, then unknown and silence."""
    found = set(found)
    order = words or sorted(found - {UNKNOWN, SILENCE})
    return [label for label in (*order, UNKNOWN, SILENCE) if label in found]


def _label(folder_name: str, words: list[str]) -> str:
    if not words or folder_name in words or folder_name in (UNKNOWN, SILENCE):
        return folder_name
    return UNKNOWN


def _test_folder(folder: Path, given: str) -> Path | None:
    if not given:
        return next((folder.parent / name for name in TEST_SETS if (folder.parent / name).is_dir()), None)
    path = Path(given).expanduser().absolute()
    if not path.is_dir():
        raise UserError(f"datarc.test_path: there is no folder {path}; give the test set of Speech Commands")
    return path
