"""The corpus of speaker verification: speakers to train on, and trials among speakers that are held out."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from mynah.downstream.interfaces import SignalChanges
from mynah.downstream.speech import SpeechDataConfig, scan_speech
from mynah.utility.audio.corpus import Utterance
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.data.splits import hash_fraction
from mynah.utility.errors import UserError
from mynah.utility.storage import write_atomically

from .trials import Trial, check_both_kinds, make_trials, read_trials, utterances_of

SPEAKER_ROOTS = ("dev/wav", "test/wav", "wav")  # where the official layouts keep the speaker folders
TRIAL_LISTS = (
    "veri_test2.txt",
    "voxceleb1_test_v2.txt",
    "veri_test.txt",
)  # as VoxCeleb1 calls it, cleaned ones first
FEWEST_HELD_OUT = 2
READABLE_SAMPLES = 1600

logger = logging.getLogger("mynah")


class VerificationDataConfig(SpeechDataConfig):
    """Where the utterances and the trials are, and how they are read."""

    file_path: str = ""
    """VoxCeleb1's folder (with dev/wav and test/wav, or wav), or any of speaker folders; "" for none."""
    trial_list: str = ""
    """Path of the test trials; "" uses veri_test2.txt, voxceleb1_test_v2.txt or veri_test.txt in or beside file_path,
    and without one makes trials of held-out speakers."""
    dev_fraction: float = Field(0.05, gt=0, le=0.5)
    """The share of the training speakers that is held out for the dev trials, two at least."""
    test_fraction: float = Field(0.2, gt=0, le=0.5)
    """The share of the speakers that is held out for test where there is neither a list nor a folder test/wav."""
    made_trials: int = Field(10000, ge=2)
    """Trials of a list that is made, half of them of one speaker."""
    utterances_per_speaker: int = Field(20, ge=2)
    """Of a held-out speaker at most this many utterances are in a list that is made."""
    max_timestep: int | None = Field(128000, ge=1)
    """Samples at 16 kHz of a training crop, null for none; dev and test are always read whole."""
    min_timestep: int = Field(32000, ge=1)
    """Samples at 16 kHz, silence included; shorter utterances are neither trained on nor in a list that is made."""
    trim_silence: bool = True
    """Cut silence at both ends."""
    gain_db: float = -3.0
    """The level of every signal is changed by it."""

    @property
    def signal_changes(self) -> SignalChanges:
        return SignalChanges(self.trim_silence, self.gain_db)


@dataclass(frozen=True)
class VerificationCorpus:
    """train: [(utterance, speaker), ...]; trials: {"dev": [...], "test": [...]}; utterances: {name: utterance}."""

    train: list[tuple[Utterance, str]]
    trials: dict[str, list[Trial]]
    utterances: dict[str, Utterance]

    def in_trials(self, split: str) -> list[Utterance]:
        """Each utterance of the split's trials once."""
        return [self.utterances[name] for name in utterances_of(self.trials[split])]


def read_corpus(config: VerificationDataConfig, folder: Path | None, log_path: Path | None) -> VerificationCorpus:
    """The corpus at config.file_path. A list of trials that is made is written into `folder`, once.

    log_path: where scan_corpora names the files that it skips. Raises UserError where speakers or trials are too few.
    """
    root = Path(config.file_path).expanduser().absolute()
    roots = {name: root / name for name in SPEAKER_ROOTS if (root / name).is_dir()} or {root.name: root}
    readable = config.model_copy(update={"min_timestep": READABLE_SAMPLES})  # an official trial may be short
    found = {each.name: each for each in scan_speech(roots, readable, log_path) if "/" in each.name}
    usable = {name: each for name, each in found.items() if each.samples >= config.min_timestep}
    by_speaker = defaultdict(list)
    for name in usable:
        by_speaker[speaker_of(name)].append(name)
    if len(by_speaker) < 2 * FEWEST_HELD_OUT:
        raise UserError(
            f"{root}: {len(by_speaker)} speakers with utterances of {config.min_timestep / SAMPLE_RATE:g} s or more; "
            "datarc.file_path must be VoxCeleb1's folder, or one with a folder of audio for each speaker; some "
            "are held out"
        )
    test, test_speakers = _test_trials(config, root, found, by_speaker, folder)
    others = sorted(set(by_speaker) - test_speakers)
    dev_speakers = hold_out(others, config.dev_fraction)
    dev = _made(config, by_speaker, dev_speakers, "dev", folder)
    train = [
        (usable[name], speaker) for speaker in others if speaker not in dev_speakers for name in by_speaker[speaker]
    ]
    logger.info(
        "%s: %d speakers train with %d utterances, %d of less than %g s left out; trials: %d dev (%d speakers), "
        "%d test (%d speakers)",
        *(root, len(others) - len(dev_speakers), len(train), len(found) - len(usable)),
        *(config.min_timestep / SAMPLE_RATE, len(dev), len(dev_speakers), len(test), len(test_speakers)),
    )
    return VerificationCorpus(train, {"dev": dev, "test": test}, found)


def speaker_of(name: str) -> str:
    """The speaker of `speaker/.../file`."""
    return name.split("/", 1)[0]


def hold_out(speakers: Sequence[str], fraction: float) -> set[str]:
    """The share of the speakers that is held out, two at least: those whose names' hashes are smallest.

    So a new speaker changes the place of one other at most, and the seed changes none. Raises UserError where fewer
    than two would be left.
    """
    count = max(FEWEST_HELD_OUT, round(fraction * len(speakers)))
    if len(speakers) < count + FEWEST_HELD_OUT:
        raise UserError(
            f"{len(speakers)} speakers, of whom {count} are to be held out: at least {FEWEST_HELD_OUT} must be left "
            "to train on; give datarc.file_path more speakers, or a trial list that names fewer of them"
        )
    return set(sorted(speakers, key=hash_fraction)[:count])


def _test_trials(
    config: VerificationDataConfig,
    root: Path,
    found: Mapping[str, Utterance],
    by_speaker: Mapping[str, Sequence[str]],
    folder: Path | None,
) -> tuple[list[Trial], set[str]]:
    """(the test trials whose files are there, the speakers that are not trained on)."""
    path = _find_list(root, config.trial_list)
    if path is not None:
        listed = read_trials(path)
        speakers = {speaker_of(name) for name in utterances_of(listed)}
        return _present(listed, found, path, config.max_bad_fraction), speakers
    if (root / "test/wav").is_dir() and (root / "dev/wav").is_dir():
        speakers = {each.name for each in (root / "test/wav").iterdir() if each.is_dir()} & set(by_speaker)
    else:
        speakers = hold_out(sorted(by_speaker), config.test_fraction)
    return _made(config, by_speaker, speakers, "test", folder), speakers


def _find_list(root: Path, given: str) -> Path | None:
    if not given:
        places = (place / name for place in (root, root.parent) for name in TRIAL_LISTS)
        return next((place for place in places if place.is_file()), None)
    path = Path(given).expanduser().absolute()
    if not path.is_file():
        raise UserError(
            f"datarc.trial_list: there is no file {path}; give VoxCeleb1's {TRIAL_LISTS[0]}, or leave it empty to "
            "make trials of held-out speakers"
        )
    return path


def _present(
    trials: Sequence[Trial], found: Mapping[str, Utterance], path: Path, max_bad_fraction: float
) -> list[Trial]:
    """The trials whose files are both there; raises UserError where too many are not."""
    present = [trial for trial in trials if trial.first in found and trial.second in found]
    if missing := [name for name in utterances_of(trials) if name not in found]:
        lost = len(trials) - len(present)
        message = (
            f"{lost} of the {len(trials)} trials of {path} cannot be scored: {len(missing)} of their files are "
            f"missing or unusable, such as {', '.join(missing[:3])}"
        )
        if lost > max_bad_fraction * len(trials):
            raise UserError(
                f"{message}; datarc.max_bad_fraction={max_bad_fraction:g} allows fewer. datarc.file_path must hold "
                "the speaker folders that the list names"
            )
        logger.warning("%s", message)
    check_both_kinds(present, str(path))
    return present


def _made(
    config: VerificationDataConfig,
    by_speaker: Mapping[str, Sequence[str]],
    speakers: Iterable[str],
    split: str,
    folder: Path | None,
) -> list[Trial]:
    """A list made of these speakers, also written into `folder` unless it has one."""
    own = {speaker: by_speaker[speaker] for speaker in sorted(speakers)}
    trials = make_trials(own, config.made_trials, config.utterances_per_speaker)
    check_both_kinds(trials, f"the {split} trials made of {len(own)} held-out speakers")
    where = ""
    if folder is not None:
        path = folder / f"{split}_trials.txt"
        where = f", listed in {path}"
        if not path.exists():
            write_atomically(path, "".join(f"{trial.line}\n" for trial in trials))
    logger.info("%s: %d trials made of %d held-out speakers%s", split, len(trials), len(own), where)
    return trials
