"""Speech corpora: which utterances there are, which are held out, and their waveforms."""

import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import Dataset

from mynah.utility.audio.durations import measure_lengths
from mynah.utility.audio.files import (
    SAMPLE_RATE,
    UnreadableAudio,
    find_audio,
    read_audio,
    trim_silence,
    with_gain,
)
from mynah.utility.configuration.sections import Section, rules
from mynah.utility.data.media_files import file_state, printable
from mynah.utility.data.splits import validation_indices
from mynah.utility.data.tables import is_table, read_manifest
from mynah.utility.errors import UserError
from mynah.utility.storage import write_atomically

NAMED_IN_ERROR = 5
MIN_TRIMMED_SAMPLES = 1600

log = logging.getLogger("mynah")


class CorpusConfig(Section):
    """Which speech is read, and how. Lengths are in samples at 16 kHz.

    file_path: {name: folder, or CSV/TSV manifest with a column `path`}; none means the demo corpus.
    max_timestep: longer utterances are cropped to this length, at random; null keeps them whole.
    min_timestep: shorter files are left out.
    max_seconds: longer files are left out where files are read whole (max_timestep is null, or trim_silence).
    valid_fraction: the share of the utterances that is held out for the validation loss.
    split_seed: decides which; apart from `seed`, so that no run trains on what another of another seed held out.
    trim_silence: cut off the silence at both ends.
    max_bad_fraction: more bad files than this share are an error.
    """

    file_path: dict[str, str] = Field(default_factory=dict)
    max_timestep: int | None = None
    min_timestep: int = Field(1600, ge=1)
    max_seconds: float = Field(3600.0, gt=0)
    valid_fraction: float = Field(0.05, ge=0, le=0.9)
    split_seed: int = Field(1337, ge=0)
    trim_silence: bool = False
    max_bad_fraction: float = Field(0.05, ge=0, le=1)

    @rules
    def _paths_and_lengths_can_be_meant(self) -> Iterable[str | None]:
        for name in (name for name, path in self.file_path.items() if not path.strip()):
            yield f"file_path.{name}: is empty; give a folder or a manifest"
        if self.max_timestep is not None and self.max_timestep < self.min_timestep:
            yield f"max_timestep: expected min_timestep ({self.min_timestep}) or more, got {self.max_timestep}"


@dataclass(frozen=True)
class Utterance:
    """path: absolute; samples: its length at 16 kHz; corpus: its name in file_path.

    name: the path within the corpus, "/" between its parts, the same wherever the corpus lies; "" if there is none.
    """

    path: str
    samples: int
    corpus: str
    name: str = ""


def scan_corpora(
    file_path: dict[str, str],
    *,
    min_samples: int,
    max_bad_fraction: float,
    log_path: Path | None,
    max_seconds: float = math.inf,
    progress: bool = True,
) -> list[Utterance]:
    """The usable utterances of all corpora, sorted by corpus name, then path.

    file_path: {name: folder, or CSV/TSV manifest}. Files that cannot be read, have fewer than `min_samples` samples
    at 16 kHz or last longer than `max_seconds` are skipped: named in `log_path` (a line each: path, tab, reason) and
    counted in one warning.
    Raises UserError where a corpus is missing, empty or wholly unusable, or more than `max_bad_fraction` of all files
    are bad; ValueError without any corpus.
    """
    if not file_path:
        raise ValueError("no corpus given")
    utterances, bad, num_files = [], {}, 0
    for corpus in sorted(file_path):
        root = Path(file_path[corpus]).expanduser().absolute()
        paths = _paths_of_corpus(corpus, root)
        lengths, problems = measure_lengths(root, paths, title=corpus, progress=progress)
        wrong = {path: _too_short(samples, min_samples) for path, samples in lengths.items() if samples < min_samples}
        wrong |= {
            path: f"too long: {samples / SAMPLE_RATE:.0f} s, more than datarc.max_seconds={max_seconds:g}"
            for path, samples in lengths.items()
            if samples > max_seconds * SAMPLE_RATE
        }
        usable = [
            Utterance(path, samples, corpus, _name_within(root, path))
            for path, samples in lengths.items()
            if path not in wrong
        ]
        utterances += usable
        bad |= problems | wrong
        num_files += len(paths)
        if not usable:
            _write_log(log_path, bad)
            reasons = _first_of(problems | wrong)
            raise UserError(f"corpus {corpus}: none of the {len(paths)} files of {root} is usable\n{reasons}")
    if bad:
        _report_bad(bad, num_files, max_bad_fraction, log_path)
    return utterances


def split_validation(
    utterances: Sequence[Utterance], fraction: float, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """(train, held out), in the given order; about `fraction` is held out, and at least one in each if there are two.

    An utterance's side follows from the seed, its corpus and its name alone: others may come and go.
    """
    names = [f"{utterance.corpus}/{utterance.name or utterance.path}" for utterance in utterances]
    validation_items = validation_indices(names, fraction, seed)
    train = [utterance for index, utterance in enumerate(utterances) if index not in validation_items]
    return train, [utterances[index] for index in sorted(validation_items)]


class SpeechDataset(Dataset):
    """Waveforms, cropped at random to at most `max_samples` (None: whole), their level changed by `gain_db`.

    Its keys are (pass over the data, index), or an index for pass 0. The crop is a function of the seed and the key.
    Items: {"signal": (T,) float32 at 16 kHz, "start": the file's sample that it begins with, "name": path,
    "rng_key": (seed, pass, index), "fixed": whether it is the same in every pass, "source": what it is of which state
    of which file (None unless `sources`), "length": samples before trimming}; for a file that turns out unreadable
    {"signal": None, "name": path, "error": reason}.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        max_samples: int | None,
        seed: int,
        trim_silence: bool = False,
        gain_db: float = 0.0,
        sources: bool = True,
    ) -> None:
        self.utterances, self.sources = list(utterances), sources
        self.max_samples, self.seed, self.trim_silence, self.gain_db = max_samples, seed, trim_silence, gain_db

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def names(self) -> list[str]:
        """Of each item within its corpus, the same wherever that lies."""
        return [f"{each.corpus}/{each.name or each.path}" for each in self.utterances]

    @property
    def lengths(self) -> list[int]:
        """Samples at 16 kHz of each item, after cropping and before silence is trimmed."""
        return [self._length(each) for each in self.utterances]

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        utterance, rng_key, crop = self._plan(key if isinstance(key, tuple) else (0, key))
        about = self._about(utterance, rng_key, crop)  # before the file is read: a later change is not taken for it
        try:
            signal, start = self._read(utterance, rng_key, crop)
        except UnreadableAudio as error:
            return {"signal": None, "name": utterance.path, "error": error.reason}
        return {**about, "signal": with_gain(signal, self.gain_db), "start": start}

    def peek(self, key: tuple[int, int]) -> dict[str, Any]:
        """The item without its signal and without reading its file, whose "source" is None where it is missing, and
        whose "start" is None where only the file's sound tells it."""
        return self._about(*self._plan(key))

    def _plan(self, key: tuple[int, int]) -> tuple[Utterance, tuple[int, int, int], tuple[int, int] | None]:
        """The utterance, its rng_key, and its crop, None where only the file's sound tells that."""
        pass_index, index = key
        utterance, rng_key = self.utterances[index], (self.seed, pass_index, index)
        return utterance, rng_key, None if self.trim_silence else self._crop(utterance.samples, rng_key)

    def _about(
        self, utterance: Utterance, rng_key: tuple[int, int, int], crop: tuple[int, int] | None
    ) -> dict[str, Any]:
        return {
            "name": utterance.path,
            "rng_key": rng_key,
            "fixed": self._is_whole(utterance),
            "source": self._source(utterance, rng_key, crop) if self.sources else None,
            "start": crop and crop[0],
            "length": self._length(utterance),
        }

    @property
    def fixed(self) -> list[bool]:
        """Of each item, whether it is the same in every pass."""
        return [self._is_whole(each) for each in self.utterances]

    def _is_whole(self, utterance: Utterance) -> bool:
        return self.max_samples is None or utterance.samples <= self.max_samples

    def _length(self, utterance: Utterance) -> int:
        return utterance.samples if self._is_whole(utterance) else self.max_samples

    def _source(
        self, utterance: Utterance, rng_key: tuple[int, int, int], crop: tuple[int, int] | None
    ) -> str | None:
        file = file_state(utterance.path)
        if file is None:
            return None
        if self.gain_db:
            file += f"\t{self.gain_db} dB"
        if crop is None:
            return f"{file}\ttrimmed" + ("" if self._is_whole(utterance) else f"\t{self.max_samples} of {rng_key}")
        return f"{file}\t{crop[0]}+{crop[1]}"

    def _read(
        self, utterance: Utterance, rng_key: tuple[int, int, int], crop: tuple[int, int] | None
    ) -> tuple[torch.Tensor, int]:
        """The waveform, and the file's sample that it begins with."""
        if crop is None:  # where the sound begins is known only from the whole
            wav, cut = trim_silence(read_audio(utterance.path))
            if len(wav) < MIN_TRIMMED_SAMPLES:
                raise UnreadableAudio(utterance.path, _too_short(len(wav), MIN_TRIMMED_SAMPLES, "without silence "))
            start, num_samples = self._crop(len(wav), rng_key)
            return wav[start : start + num_samples].clone(), cut + start
        start, num_samples = crop
        wav = read_audio(utterance.path, start, num_samples)
        if len(wav) < num_samples:
            raise UnreadableAudio(utterance.path, "shorter than when the corpus was scanned")
        return wav, start

    def _crop(self, samples: int, rng_key: tuple[int, int, int]) -> tuple[int, int]:
        """(start, length) of the crop."""
        if self.max_samples is None or samples <= self.max_samples:
            return 0, samples
        generator = np.random.default_rng(rng_key)
        return int(generator.integers(samples - self.max_samples + 1)), self.max_samples


def _paths_of_corpus(corpus: str, root: Path) -> list[str]:
    """Absolute, sorted, each once."""
    try:
        if is_table(root) and not root.is_dir():
            return sorted({row["path"] for row in read_manifest(root)})
        if root.is_file():
            raise UserError(f"not a folder: {root}; give a folder, or a .csv or .tsv manifest with a column 'path'")
        return [str(path) for path in find_audio(root)]
    except UserError as error:
        raise UserError(f"corpus {corpus}: {error}") from error


def _name_within(root: Path, path: str) -> str:
    folder = root if root.is_dir() else root.parent
    return path.removeprefix(f"{folder}{os.sep}").lstrip("/\\").replace("\\", "/")


def _too_short(samples: int, least: int, how: str = "") -> str:
    return f"too short: {how}{samples / SAMPLE_RATE:.3f} s, less than {least / SAMPLE_RATE:.3f} s"


def _report_bad(bad: dict[str, str], num_files: int, max_bad_fraction: float, log_path: Path | None) -> None:
    """Name the bad files in the log and warn of them; raises UserError where they are too many."""
    _write_log(log_path, bad)
    count, where = f"{len(bad)} of {num_files} audio files", f", listed in {log_path}" if log_path else ""
    if len(bad) > max_bad_fraction * num_files:
        raise UserError(
            f"{count} cannot be used, more than datarc.max_bad_fraction={max_bad_fraction} allows{where}\n"
            f"{_first_of(bad)}\nmend or remove these files, or raise datarc.max_bad_fraction"
        )
    log.warning("skipping %s that cannot be used%s", count, where)


def _write_log(log_path: Path | None, bad: dict[str, str]) -> None:
    """Write them, below what an earlier leg of the run wrote of others."""
    if log_path is None:
        return
    path = Path(log_path)
    lines = {printable(name): f"{printable(name)}\t{printable(reason)}\n" for name, reason in bad.items()}
    earlier = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in earlier if line.partition("\t")[0] not in lines]
    write_atomically(path, "".join([*kept, *lines.values()]))


def _first_of(bad: dict[str, str]) -> str:
    lines = [f"  {path}: {reason}" for path, reason in list(bad.items())[:NAMED_IN_ERROR]]
    return "\n".join(lines + ([f"  and {len(bad) - NAMED_IN_ERROR} more"] if len(bad) > NAMED_IN_ERROR else []))
