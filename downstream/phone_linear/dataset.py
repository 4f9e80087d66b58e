"""Utterances with their aligned phones: from a table, from a folder with alignments, by published lists."""

import math
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from pydantic import Field

from mynah.downstream.interfaces import SPLITS
from mynah.downstream.speech import Corpus, SpeechDataConfig, scan_speech
from mynah.utility.audio.alignment import Segment
from mynah.utility.audio.alignment_files import read_alignment, read_lines
from mynah.utility.audio.alignment_index import AlignmentIndex
from mynah.utility.audio.corpus import Utterance
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.sections import rules
from mynah.utility.data.splits import hash_fraction
from mynah.utility.data.tables import is_table, read_split_table
from mynah.utility.errors import UserError

LIST_SEED, LIST_SHARE = 1337, 0.9
"""How s3prl divides train_split.txt into train and dev."""
HELD_OUT = 0.1
"""The share of the speakers, or utterances, that each of dev and test has where nothing else divides them."""
LONGEST_FACTOR = 2
"""Times the length of the audio, and a second: an alignment that ends later is not in seconds."""


class PhoneDataConfig(SpeechDataConfig):
    """Where the utterances and their alignments are, and which labels are told apart."""

    file_path: str = ""
    """A folder of audio, or a table with the columns path, split and alignment (a file's path); "" for none."""
    alignments: str = ""
    """With a folder: a folder of TextGrid, xlabel or `start end phone` files named as the audio, a CTM, or s3prl's
    list of a phone for each 10 ms."""
    tier: str = ""
    """Of TextGrids: the tier; "" takes one called phones or phone, or the only one."""
    train_list: str = ""
    """A file of utterance names, one a line, of which 9 in 10 train; "" for none."""
    test_list: str = ""
    """Another, for the test."""
    speaker: str = ""
    r"""Without lists: a regular expression whose first group finds the speaker in an audio file's path, `([^/-]+)-`
    say; whole speakers are then held out. "" holds out utterances."""
    phones: str = ""
    """A file of lines `label phone`, by which labels are renamed; a label without a phone is left out. `*` stands for
    the labels that it does not list, which else keep their names."""
    strip_stress: bool = False
    """Leave the digits at the end of labels out: AH0 and AH1 are AH."""
    ignored: list[str] = Field(default_factory=list)
    """Labels that are neither learned nor counted, after renaming, such as SIL."""

    @rules
    def _belongs_together(self) -> Iterable[str | None]:
        if bool(self.train_list) != bool(self.test_list):
            yield "train_list: and test_list are given together, or neither"
        if self.train_list and self.speaker:
            yield "speaker: is for corpora without lists"
        try:
            if self.speaker and re.compile(self.speaker).groups < 1:
                yield f"speaker: expected a group in parentheses that is the speaker, got {self.speaker!r}"
        except re.error as error:
            yield f"speaker: {self.speaker!r} is not a regular expression: {error}"


def read_phones(config: PhoneDataConfig, log_path: Path | None) -> Corpus:
    """{split: [(utterance, [Segment, ...]), ...]}. Raises UserError for what is missing or wrong, with its line."""
    rename = Renaming(config)
    corpus: Corpus = {split: [] for split in SPLITS}
    if is_table(config.file_path) and not config.alignments:
        table = read_split_table(config.file_path, "alignment")
        folder = Path(config.file_path).expanduser().absolute().parent
        for utterance in scan_speech({"table": config.file_path}, config, log_path):
            alignment, split = table[utterance.path]
            segments = _checked(read_alignment(folder / alignment, config.tier), utterance)
            corpus[split].append((utterance, rename(segments)))
        return corpus
    if not config.alignments:
        raise UserError(
            "datarc.alignments is needed where datarc.file_path is a folder; give a folder of alignments, a CTM, "
            "or s3prl's converted_aligned_phones.txt"
        )
    index = AlignmentIndex(config.alignments, config.tier)
    utterances = scan_speech({"audio": config.file_path}, config, log_path)
    aligned = [
        (one, rename(_checked(found, one))) for one in utterances if (found := index.find(one.name or one.path))
    ]
    if not aligned:
        example = PurePosixPath(utterances[0].path).stem
        raise UserError(
            f"{config.alignments} has no alignment for any of the {len(utterances)} audio files of "
            f"{config.file_path}, such as {example}; alignments are named as the audio is"
        )
    splits = split_utterances(config, [one for one, _ in aligned])
    for utterance, segments in aligned:
        if split := splits.get(utterance.path):
            corpus[split].append((utterance, segments))
    return corpus


def _checked(segments: list[Segment], utterance: Utterance) -> list[Segment]:
    """The segments. Raises UserError where they end so late that they cannot be in seconds (TIMIT's are not)."""
    seconds = utterance.samples / SAMPLE_RATE
    if segments and (last := max(segment.end for segment in segments)) > LONGEST_FACTOR * seconds + 1:
        raise UserError(
            f"{utterance.path} is {seconds:.2f} s long, but its alignment ends at {last:.2f} s; times must be in "
            "seconds (divide TIMIT's, which are samples, by 16000)"
        )
    return segments


def split_utterances(config: PhoneDataConfig, utterances: Sequence[Utterance]) -> dict[str, str]:
    """{path: split}: by the lists, by a table's own column, by folders train*, dev*, test*, or by held out names."""
    if config.train_list:
        by_stem = published_splits(Path(config.train_list), Path(config.test_list))
        return {one.path: by_stem[stem] for one in utterances if (stem := PurePosixPath(one.path).stem) in by_stem}
    if is_table(config.file_path):
        return {path: split for path, (_, split) in read_split_table(config.file_path, "split").items()}
    folders = {one.path: _split_of_folder(one.name) for one in utterances}
    if not config.speaker and all(folders.values()):
        return folders
    groups = {one.path: _speaker(one, config.speaker) if config.speaker else one.name for one in utterances}
    by_group = held_out(groups.values())
    return {path: by_group[group] for path, group in groups.items()}


def published_splits(train_list: Path, test_list: Path) -> dict[str, str]:
    """{utterance's name: split}: train_list, shuffled with seed 1337, gives 9 in 10 to train and the rest to dev."""
    train, test = ([line.strip() for _, line in read_lines(path.expanduser())] for path in (train_list, test_list))
    random.Random(LIST_SEED).shuffle(train)
    count = int(len(train) * LIST_SHARE)
    return dict.fromkeys(train[:count], "train") | dict.fromkeys(train[count:], "dev") | dict.fromkeys(test, "test")


def held_out(names: Iterable[str]) -> dict[str, str]:
    """{name: split}: by the order of the names' hashes a tenth is dev, a tenth test, one at least."""
    order = sorted(set(names), key=hash_fraction)
    count = math.ceil(HELD_OUT * len(order))
    if len(order) < 3:
        raise UserError(f"{len(order)} speakers or utterances cannot be divided into train, dev and test")
    return {name: SPLITS[1 + index // count] if index < 2 * count else "train" for index, name in enumerate(order)}


def _speaker(utterance: Utterance, pattern: str) -> str:
    match = re.search(pattern, utterance.name or utterance.path)
    if match is None or not match[1]:
        raise UserError(f"datarc.speaker: {pattern!r} finds no speaker in {utterance.name or utterance.path}")
    return match[1]


def _split_of_folder(name: str) -> str | None:
    first = name.partition("/")[0].lower() if "/" in name else ""
    return next((split for split in SPLITS if first.startswith(split)), None)


class Renaming:
    """The labels of files -> those that are told apart."""

    def __init__(self, config: PhoneDataConfig):
        self.config = config
        self.table: dict[str, str] = {}
        if config.phones:
            path = Path(config.phones).expanduser()
            for number, line in read_lines(path):
                label, *phone = line.split()
                if len(phone) > 1 or label in self.table:
                    problem = "is listed twice" if label in self.table else "has more than one phone"
                    raise UserError(f"{path}, line {number}: the label {label} {problem}; expected lines label phone")
                self.table[label] = phone[0] if phone else ""

    def __call__(self, segments: Sequence[Segment]) -> list[Segment]:
        renamed = ((segment, self.name(segment.label)) for segment in segments)
        return [Segment(segment.start, segment.end, name) for segment, name in renamed if name]

    def name(self, label: str) -> str:
        """ "" for one that is left out."""
        name = self.table.get(label, self.table.get("*", label))
        if self.config.strip_stress:
            name = name.rstrip("0123456789") or name
        return "" if name in self.config.ignored else name
