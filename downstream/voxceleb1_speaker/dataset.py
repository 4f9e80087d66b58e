"""The corpus of speakers: its utterances and their splits.

Two sources: VoxCeleb1's own list, `iden_split.txt`, or, without one, any folder of speaker folders. Both
become one table, {name: split}; a name is `speaker/.../file`, relative to the folder that holds the speakers.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from mynah.downstream.interfaces import SignalChanges
from mynah.downstream.speech import SpeechDataConfig, scan_speech
from mynah.utility.audio.corpus import Utterance
from mynah.utility.data.splits import hash_fraction
from mynah.utility.errors import UserError

SPLITS = {"1": "train", "2": "dev", "3": "test"}  # as numbered in iden_split.txt
SPEAKER_ROOTS = ("dev/wav", "test/wav", "wav")  # where the official layouts keep the speaker folders
SPLIT_LIST = "iden_split.txt"

logger = logging.getLogger("mynah")


class SpeakerDataConfig(SpeechDataConfig):
    """Where the utterances are and how they are read."""

    file_path: str = ""
    """VoxCeleb1's folder (with dev/wav and test/wav, or wav), or any of speaker folders; "" for none."""
    split_list: str = ""
    """Path of an iden_split.txt; "" uses the one in or beside file_path, and without one splits 80/10/10."""
    max_timestep: int | None = Field(128000, ge=1)
    """Samples at 16 kHz of a training crop, null for none; dev and test are always read whole."""
    trim_silence: bool = False
    """Cut silence at both ends."""

    @property
    def signal_changes(self) -> SignalChanges:
        return SignalChanges(self.trim_silence)


@dataclass(frozen=True)
class SpeakerCorpus:
    """speakers: sorted names, the classes. utterances: {split: [(utterance, speaker), ...]}."""

    speakers: list[str]
    utterances: dict[str, list[tuple[Utterance, str]]]


def read_corpus(config: SpeakerDataConfig, log_path: Path | None = None) -> SpeakerCorpus:
    """The corpus at config.file_path; file lengths come from the headers, through the cache.

    log_path: where scan_corpora names the files that it skips. Raises UserError without at least two speakers.
    """
    folder = Path(config.file_path).expanduser().absolute()
    roots = _speaker_roots(folder)
    found = {each.name: each for each in scan_speech(roots, config, log_path)}
    split_list = _find_split_list(folder, config.split_list)
    if split_list is None:
        partition = split_by_speaker(found)
    else:
        partition = read_split_list(split_list)
        _report_missing(partition, found, roots, split_list)
    speakers = sorted({speaker_of(name) for name in partition})
    if len(speakers) < 2:
        raise UserError(
            f"{split_list or folder}: at least two speakers are needed, found {len(speakers)}; "
            "datarc.file_path must be VoxCeleb1's folder, or one with a folder of audio for each speaker"
        )
    utterances = {split: [] for split in SPLITS.values()}
    for name, split in partition.items():
        if name in found:
            utterances[split].append((found[name], speaker_of(name)))
    sizes = ", ".join(f"{len(members)} {split}" for split, members in utterances.items())
    logger.info("%s: %d speakers; utterances: %s", folder, len(speakers), sizes)
    return SpeakerCorpus(speakers, utterances)


def speaker_of(name: str) -> str:
    """The speaker of `speaker/.../file`."""
    return name.split("/", 1)[0]


def read_split_list(path: Path) -> dict[str, str]:
    """{name: split} of lines such as `3 id10003/na8-QEFmj44/00003.wav`, in the list's order.

    Raises UserError, with the line's number, for any other line and for a file that is listed twice.
    """
    partition = {}
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        split, name = [*line.split(maxsplit=1), ""][:2]
        name = name.strip()
        if split not in SPLITS or "/" not in name:
            raise UserError(
                f"{path}, line {number}: expected '1', '2' or '3' (train, dev, test) and a file such as "
                f"id10001/1zcIwhmdeo4/00001.wav, got {line.strip()!r}"
            )
        if name in partition:
            raise UserError(f"{path}, line {number}: {name} is listed twice; remove one of the two lines")
        partition[name] = SPLITS[split]
    return partition


def split_by_speaker(names: Iterable[str]) -> dict[str, str]:
    """{name: split}: of a speaker's utterances a tenth is test, a tenth dev; of three or more, at least one each.

    Depends on the names alone (their hashes give the order), so every machine and seed has the same split, and
    a new file moves at most three others. Files outside a speaker's folder are left out.
    """
    by_speaker = defaultdict(list)
    for name in names:
        if "/" in name:
            by_speaker[speaker_of(name)].append(name)
    partition = {}
    for _, own in sorted(by_speaker.items()):
        tenth = max(1, round(len(own) / 10)) if len(own) >= 3 else 0
        for rank, name in enumerate(sorted(own, key=hash_fraction)):
            partition[name] = "test" if rank < tenth else "dev" if rank < 2 * tenth else "train"
    return partition


def _speaker_roots(folder: Path) -> dict[str, Path]:
    roots = {name: folder / name for name in SPEAKER_ROOTS if (folder / name).is_dir()}
    return roots or {folder.name: folder}


def _find_split_list(folder: Path, given: str) -> Path | None:
    if not given:
        return next((each for each in (folder / SPLIT_LIST, folder.parent / SPLIT_LIST) if each.is_file()), None)
    path = Path(given).expanduser().absolute()
    if not path.is_file():
        raise UserError(
            f"datarc.split_list: there is no file {path}; give VoxCeleb1's {SPLIT_LIST}, "
            "or leave it empty to split the speaker folders 80/10/10"
        )
    return path


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of splits: {error}") from error


def _report_missing(
    partition: dict[str, str], found: dict[str, Utterance], roots: dict[str, Path], split_list: Path
) -> None:
    """One warning if listed files are not on the disk. (scan_corpora warns of those that cannot be read.)"""
    usable = [name for name in partition if name in found]
    unusable = [name for name in partition if name not in found]
    missing = [name for name in unusable if not any((root / name).exists() for root in roots.values())]
    places = ", ".join(str(root) for root in roots.values())
    if not usable:
        raise UserError(
            f"{places}: has none of the {len(partition)} files of {split_list}, such as {_some(partition)}; "
            "datarc.file_path must hold the speaker folders that the list names"
        )
    if not missing:
        return
    trained = {speaker_of(name) for name in usable if partition[name] == "train"}
    untrained = {speaker_of(name) for name in partition} - trained
    counts = Counter(partition[name] for name in missing)
    by_split = ", ".join(f"{counts[split]} {split}" for split in SPLITS.values() if counts[split])
    logger.warning(
        "%d of the %d files of %s are missing under %s (%s), such as %s; %.2f %% of the list is covered; "
        "%d speakers have nothing to train on",
        *(len(missing), len(partition), split_list, places, by_split, _some(missing)),
        *(100 * len(usable) / len(partition), len(untrained)),
    )


def _some(names: Iterable[str], count: int = 3) -> str:
    return ", ".join(list(names)[:count])
