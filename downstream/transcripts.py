"""Corpora of speech with transcripts: LibriSpeech's folders, or a table."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import Field

from mynah.downstream.interfaces import SPLITS
from mynah.downstream.sequence import SequenceDataConfig
from mynah.downstream.speech import Corpus, SpeechTask
from mynah.utility.audio.corpus import Utterance
from mynah.utility.configuration.sections import rules
from mynah.utility.data.media_files import printable
from mynah.utility.data.tables import is_table
from mynah.utility.errors import UserError

TRANSCRIPTS = "*.trans.txt"
NAMED_IN_ERROR = 5

log = logging.getLogger("mynah")


class TranscriptDataConfig(SequenceDataConfig):
    """Where the utterances and their transcripts are."""

    file_path: str = ""
    """LibriSpeech's folder, which holds those that `train`, `dev` and `test` name, or a CSV or TSV with the columns
    path, text, split; "" for none."""
    train: list[str] = Field(default_factory=lambda: ["train-clean-100"])
    """The folders of LibriSpeech to train on."""
    dev: list[str] = Field(default_factory=lambda: ["dev-clean"])
    """Those that choose the checkpoint."""
    test: list[str] = Field(default_factory=lambda: ["test-clean"])
    """Those that are tested."""
    skip_unknown: bool = False
    """Leave out utterances with what the task cannot say (an unknown word, a digit); else they are an error."""

    @property
    def folders(self) -> dict[str, str]:
        """{folder: its split}."""
        return {name: split for split in SPLITS for name in getattr(self, split)}

    @rules
    def _no_folder_is_in_two_splits(self) -> Iterable[str | None]:
        count = Counter(name for split in SPLITS for name in getattr(self, split))
        for split in SPLITS:
            if not getattr(self, split):
                yield f"{split}: names no folder"
            for name in getattr(self, split):
                if count[name] > 1:
                    yield f"{split}: {name} is named twice; a folder belongs to one split"


def read_transcripts(task: SpeechTask, column: str = "text") -> Corpus:
    """The transcripts of `task.config.datarc`, as they stand there; of a table its `column`. Raises UserError."""
    data: TranscriptDataConfig = task.config.datarc
    if is_table(data.file_path) and not Path(data.file_path).expanduser().is_dir():
        return task.read_table(column)
    root = Path(data.file_path).expanduser().absolute()
    if missing := [name for name in data.folders if not (root / name).is_dir()]:
        found = sorted(each.name for each in root.iterdir() if each.is_dir()) if root.is_dir() else []
        raise UserError(
            f"{root}: has no folder {' and no folder '.join(missing)} (there are {', '.join(found[:8]) or 'none'}); "
            "give LibriSpeech's folder or a .csv or .tsv table as datarc.file_path, or name each split's folders in "
            "datarc.train, datarc.dev and datarc.test"
        )
    texts = {name: read_folder(root / name) for name in data.folders}
    corpus: Corpus = {split: [] for split in SPLITS}
    mute, seen = [], set()
    utterances = task.scan({name: root / name for name in data.folders})
    for each in utterances:
        key = (each.corpus, Path(each.path).stem)
        if key in seen:
            raise UserError(
                f"{each.path}: another file of {root / each.corpus} is called {key[1]} too; remove one of them"
            )
        seen.add(key)
        if key[1] in texts[each.corpus]:
            corpus[data.folders[each.corpus]].append((each, texts[each.corpus][key[1]]))
        else:
            mute.append(each)
    _report_mute(mute, len(utterances), root, data.max_bad_fraction)
    silent = sum(len(own) for own in texts.values()) - (len(utterances) - len(mute))
    if silent:
        log.warning("%d transcripts of %s have no usable audio file", silent, root)
    return corpus


def read_folder(folder: Path) -> dict[str, str]:
    """{utterance: text} of the lines `1089-134686-0000 HE HOPED ...` of all *.trans.txt below a folder.

    Raises UserError, with the line's number, for one without a text or an utterance that stands there twice.
    """
    texts: dict[str, str] = {}
    paths = sorted(folder.rglob(TRANSCRIPTS))
    if not paths:
        raise UserError(f"{folder}: no transcripts ({TRANSCRIPTS}) in or below it")
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # a text may hold other separators of lines
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as transcripts: {error}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            name, *words = line.split()
            if not words:
                raise UserError(f"{path}, line {number}: expected an utterance and its text, got {printable(line)!r}")
            if name in texts:
                raise UserError(f"{path}, line {number}: {name} has a second transcript; remove one of them")
            texts[name] = " ".join(words)
    return texts


def without_unknown(
    corpus: Corpus, unknown_in: Callable[[str], Sequence[str]], what: str, task: SpeechTask
) -> Corpus:
    """The corpus, if the task can say all of it.

    unknown_in: a text -> what of it the task cannot say; what: how these are called ("words that the lexicon does not
    have"). Utterances with any are left out where datarc.skip_unknown is true; else they are an error.
    """
    unknown: Counter[str] = Counter()
    kept: Corpus = {split: [] for split in corpus}
    example = ""
    for split, items in corpus.items():
        for utterance, text in items:
            if found := unknown_in(text):
                example = example or f"{printable(str(found[0]))!r} in {utterance.path}"
                unknown.update(found)
            else:
                kept[split].append((utterance, text))
    if not unknown:
        return corpus
    left_out = {split: len(items) - len(kept[split]) for split, items in corpus.items()}
    where = ", ".join(f"{count} of the {len(corpus[split])} of {split}" for split, count in left_out.items() if count)
    names = ", ".join(printable(name) for name, _ in unknown.most_common(NAMED_IN_ERROR))
    count, place = sum(left_out.values()), task.config.datarc.file_path
    told = f"{place}: {count} texts ({where}) have {len(unknown)} {what}: {names}"
    if not task.config.datarc.skip_unknown:
        raise UserError(
            f"{told} (such as {example}); correct them, or leave these utterances out with datarc.skip_unknown=true"
        )
    log.warning("%s; these utterances are left out", told)
    return kept


def _report_mute(mute: Sequence[Utterance], count: int, root: Path, max_bad_fraction: float) -> None:
    if not mute:
        return
    told = f"{len(mute)} of {count} audio files of {root} have no transcript, such as {mute[0].path}"
    if len(mute) > max_bad_fraction * count:
        raise UserError(
            f"{told}: more than datarc.max_bad_fraction={max_bad_fraction} allows; each needs a line that begins "
            f"with its name, {Path(mute[0].path).stem}, in a {TRANSCRIPTS} of its folder"
        )
    log.warning("%s; they are left out", told)
