"""Tasks on speech files: their data section, their table, and the datasets of their splits."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from mynah.downstream.interfaces import SPLITS, DownstreamConfig, DownstreamExpert, SignalChanges
from mynah.utility.audio.corpus import Utterance, scan_corpora
from mynah.utility.audio.labelled import AtCrop, LabelledSpeechDataset
from mynah.utility.configuration.sections import Section, rules
from mynah.utility.data.media_files import printable
from mynah.utility.data.tables import read_split_table
from mynah.utility.errors import UserError

Corpus = dict[str, list[tuple[Utterance, Any]]]
"""{split: [(utterance, what is to be learned of it), ...]} of train, dev and test."""


class SpeechDataConfig(Section):
    """Where the utterances are and how they are read; a task's own section derives from it."""

    file_path: str = ""
    """The data; "" for none."""
    max_timestep: int | None = Field(None, ge=1)
    """Samples at 16 kHz of a training crop, null for whole utterances; dev and test are always read whole."""
    min_timestep: int = Field(1600, ge=1)
    """Samples at 16 kHz; shorter files are skipped."""
    max_seconds: float = Field(3600.0, gt=0)
    """Longer files are skipped."""
    max_bad_fraction: float = Field(0.05, ge=0, le=1)
    """The share of unreadable or too short files that is still accepted."""

    @property
    def signal_changes(self) -> SignalChanges:
        """None, unless a section has options for them."""
        return SignalChanges()

    @rules
    def _lengths_agree(self) -> Iterable[str | None]:
        if self.max_timestep is not None and self.max_timestep < self.min_timestep:
            yield f"max_timestep: expected min_timestep ({self.min_timestep}) or more, got {self.max_timestep}"


class SpeechTaskConfig(DownstreamConfig):
    """The schema of such a task; a subclass declares its own `datarc` and `model`."""

    datarc: SpeechDataConfig = Field(default_factory=SpeechDataConfig)

    @property
    def signal_changes(self) -> SignalChanges:
        return self.datarc.signal_changes


class SpeechTask(DownstreamExpert):
    """A subclass says what `read_corpus` finds, and what an item's label is."""

    Config = SpeechTaskConfig
    name, names = "label", "labels"
    """What a label and several are called: in tables, in results, and in a checkpoint's state."""
    split_hint = ""
    """What a user should know where a split is empty."""
    crops_everything = False
    """Whether dev and test are cropped as training is, at a fixed place; else they are read whole."""
    at_crop: AtCrop | None = None
    """Makes an item's label of the utterance's, where it depends on the crop."""

    @abstractmethod
    def read_corpus(self) -> Corpus:
        """What is to be learned of each utterance of each split. Raises UserError."""

    def encode_label(self, target: Any) -> Any:
        """What `read_corpus` says of an utterance -> its label, in the form that `forward` takes.

        Raises LookupError, with its name, for one that the task does not know.
        """
        return target

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise UserError where there are not two labels to tell apart."""
        if len(labels) < 2:
            found = ", ".join(labels) or "none"
            place = self.config.datarc.file_path
            raise UserError(f"{place}: at least two labels are needed to tell apart, found {found}")

    @cached_property
    def corpus(self) -> Corpus:
        """What `read_corpus` finds, on first use, so that inference needs no data."""
        return self.read_corpus()

    def get_dataset(self, split: str) -> LabelledSpeechDataset:
        data, items = self.config.datarc, self.corpus[split]
        if not items:
            raise UserError(
                f"{data.file_path} has no utterance for the split '{split}'; every split needs some{self.split_hint}"
            )
        labels, unknown = [], []
        for _, target in items:
            try:
                labels.append(self.encode_label(target))
            except LookupError as error:
                unknown.append(str(error.args[0]))
        if unknown:
            examples = [f"'{printable(each)}'" for each in sorted(set(unknown))[:3]]
            raise UserError(
                f"{data.file_path}: {len(unknown)} of the {len(items)} utterances of the split '{split}' have "
                f"{self.names} that the training split has not, such as {', '.join(examples)}; correct "
                "them, leave these utterances out, or have such in the training split and train anew; for a trained "
                "task, give a corpus like the one that it was trained on, and the options of datarc that it had"
            )
        return LabelledSpeechDataset(
            [utterance for utterance, _ in items],
            labels,
            max_samples=data.max_timestep if split == "train" or self.crops_everything else None,
            seed=self.config.seed,
            trim_silence=data.signal_changes.trim_silence,
            at_crop=self.at_crop,
            gain_db=data.signal_changes.gain_db,
        )

    def scan(self, folders: Mapping[str, str | Path]) -> list[Utterance]:
        """The usable utterances of folders or tables, {name: path}; what is not usable is named and counted."""
        return scan_speech(folders, self.config.datarc, self.skipped_files)

    def read_table(self, column: str) -> Corpus:
        """The corpus of the table datarc.file_path, with the columns path, split and `column`. Raises UserError."""
        table = read_split_table(self.config.datarc.file_path, column)
        corpus: Corpus = {split: [] for split in SPLITS}
        for utterance in self.scan({"table": self.config.datarc.file_path}):
            value, split = table[utterance.path]
            corpus[split].append((utterance, value))
        return corpus


def scan_speech(
    folders: Mapping[str, str | Path], config: SpeechDataConfig, log_path: Path | None
) -> list[Utterance]:
    """`scan_corpora` with the bounds of a task's data section."""
    return scan_corpora(
        {name: str(folder) for name, folder in folders.items()},
        min_samples=config.min_timestep,
        max_seconds=config.max_seconds,
        max_bad_fraction=config.max_bad_fraction,
        log_path=log_path,
    )
