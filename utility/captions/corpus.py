"""Corpora of captioned clips, laid out as VATEX is: which clips there are, their captions, and their frames."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import Dataset

from mynah.utility.captions.files import LANGUAGES, read_captions
from mynah.utility.configuration.sections import Section, one_of, rules
from mynah.utility.data.media_files import file_state, printable
from mynah.utility.data.splits import validation_indices
from mynah.utility.demo.video import demo_vatex
from mynah.utility.errors import UserError
from mynah.utility.storage import cache_dir, write_atomically
from mynah.utility.video.files import VIDEO_SUFFIXES, UnreadableVideo, find_videos, read_clip
from mynah.utility.video.frame_cache import FrameCache

OFFICIAL_NAMES = {
    "train": "vatex_training_v1.0.json",
    "dev": "vatex_validation_v1.0.json",
    "test": "vatex_public_test_english_v1.1.json",
}
NAMED_IN_MESSAGE = 5

log = logging.getLogger("mynah")


class CaptionCorpusConfig(Section):
    """Which clips are read, and how.

    file_path: folder of videos, searched recursively; a video's id is its file name without the suffix. "" means the
      demo corpus.
    train, dev, test: files with the captions of each split: VATEX's JSON, or JSON, CSV or TSV of video and caption.
      "" means the official name, such as vatex_training_v1.0.json, in `file_path` or the folder above it.
    language: of VATEX's captions, en or zh.
    frame_cache: folder in which decoded frames are kept; "" keeps none, auto means one in the user's cache folder.
    max_bad_fraction: more clips than this share that cannot be decoded are an error; missing ones are not.
    captions_per_clip: how many captions of a clip a training step sees.
    """

    file_path: str = ""
    train: str = ""
    dev: str = ""
    test: str = ""
    language: Annotated[str, one_of(LANGUAGES)] = "en"
    frame_cache: str = ""
    max_bad_fraction: float = Field(0.2, ge=0, le=1)
    captions_per_clip: int = Field(1, ge=1)

    @rules
    def _places_can_be_meant(self) -> Iterable[str | None]:
        named = [split for split in OFFICIAL_NAMES if getattr(self, split)]
        if named and not self.file_path:
            yield f"file_path: missing; {' and '.join(named)} tell of captions, but not which folder has the videos"
        cache = self.frame_cache_folder()
        if cache is not None and cache.exists() and not cache.is_dir():
            yield f"frame_cache: {cache} is a file; give a folder"

    def frame_cache_folder(self) -> Path | None:
        """Where decoded frames are kept; None for nowhere."""
        if not self.frame_cache:
            return None
        return cache_dir() / "frames" if self.frame_cache == "auto" else Path(self.frame_cache).expanduser()


@dataclass(frozen=True)
class CaptionedClip:
    """path: absolute; name: as the annotation has it, VATEX's videoID; captions: one or more."""

    path: str
    name: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """What of a split is there. clips: in the annotation's order; missing: names of listed clips without a file."""

    clips: list[CaptionedClip]
    num_listed: int
    missing: list[str]

    @property
    def share(self) -> float:
        """Of the listed clips, from 0 to 1; it belongs beside every score."""
        return len(self.clips) / self.num_listed


def read_captioned_clips(config: CaptionCorpusConfig, split: str, log_path: Path | None) -> Coverage:
    """The clips of a split ("train", "dev", "test") that have captions and a file.

    VATEX loses clips every year: those without a file are named in `log_path` (a line each: name, tab, "missing") and
    counted in one warning. Whether files can be decoded shows when they are read.
    Raises UserError where there is no annotation, it is malformed or has no captions in the language, the folder is
    missing or has no videos, or none of the listed clips is in it.
    """
    annotation = annotation_file(config, split)
    if annotation is None:
        raise UserError(
            f"no captions for {split}: {OFFICIAL_NAMES[split]} is neither in {config.file_path} nor in the folder "
            f"above it; name the file with -o datarc.{split}=FILE"
        )
    captions = read_captions(annotation, config.language)
    videos = _Videos(_folder(config))
    found = {name: videos.find(name) for name in captions}
    missing = [name for name, path in found.items() if path is None]
    if len(missing) == len(captions):
        raise UserError(
            f"none of the {len(captions)} clips listed in {annotation} is below {videos.folder}: "
            f"{_first_of(missing)}; a video's file name without its suffix must be its id"
        )
    if missing:
        _report_missing(split, missing, len(captions), log_path)
    clips = [
        CaptionedClip(str(path), name, tuple(captions[name])) for name, path in found.items() if path is not None
    ]
    return Coverage(clips, len(captions), missing)


def annotation_file(config: CaptionCorpusConfig, split: str) -> Path | None:
    """The file with the captions of a split; None where none is named and none has the official name."""
    if named := getattr(config, split):
        return Path(named).expanduser().absolute()
    folder = _folder(config)
    candidates = [place / OFFICIAL_NAMES[split] for place in (folder, folder.parent)]
    return next((path for path in candidates if path.is_file()), None)


def split_validation_clips(
    clips: Sequence[CaptionedClip], fraction: float, seed: int
) -> tuple[list[CaptionedClip], list[CaptionedClip]]:
    """(train, held out), in the given order; a clip's side follows from the seed and its name alone."""
    validation_items = validation_indices([clip.name for clip in clips], fraction, seed)
    train = [clip for index, clip in enumerate(clips) if index not in validation_items]
    return train, [clips[index] for index in sorted(validation_items)]


class ClipDataset(Dataset):
    """Frames and captions of clips.

    num_frames, frame_size: frames a clip, evenly spaced, and pixels of their shorter side (see read_clip).
    random_crop: cut a random square out of the frames, the same one out of all of a clip.
    captions_per_clip: how many captions of a clip are drawn, without repeating one before all were; None for all.
    frame_cache: folder of decoded frames, None for none.
    Its keys are (pass over the data, index), or an index for pass 0; crop and captions are a function of the seed and
    the key. Items: {"signal": (num_frames, 3, H, W) uint8, "label": captions, "name": of the clip, "rng_key": (seed,
    pass, index), "fixed": whether the signal is the same in every pass, "source": what it is of which state of which
    file}; for a clip that cannot be decoded {"signal": None, "name": path, "error": reason}.
    """

    def __init__(
        self,
        clips: Sequence[CaptionedClip],
        num_frames: int,
        frame_size: int,
        seed: int,
        random_crop: bool = False,
        captions_per_clip: int | None = None,
        frame_cache: Path | None = None,
    ) -> None:
        self.clips = list(clips)
        self.num_frames, self.frame_size = num_frames, frame_size
        self.seed, self.random_crop, self.captions_per_clip = seed, random_crop, captions_per_clip
        self._read = read_clip if frame_cache is None else FrameCache(frame_cache).read

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def names(self) -> list[str]:
        """Of each clip, as the annotations have it."""
        return [clip.name for clip in self.clips]

    @property
    def lengths(self) -> list[int]:
        """Frames of each item."""
        return [self.num_frames] * len(self)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        pass_index, index = key if isinstance(key, tuple) else (0, key)
        clip = self.clips[index]
        rng_key = (self.seed, pass_index, index)
        generator = np.random.default_rng(rng_key)
        source = self._source(clip, rng_key)
        try:
            frames = self._read(clip.path, self.num_frames, self.frame_size)
        except UnreadableVideo as error:
            return {"signal": None, "name": clip.path, "error": error.reason}
        if self.random_crop:
            frames = self._crop(frames, generator)
        return {"signal": frames, **self._about(clip, rng_key, generator), "source": source}

    def peek(self, key: tuple[int, int]) -> dict[str, Any]:
        """The item without its signal and without reading its file, whose "source" is None where it is missing."""
        pass_index, index = key
        clip, rng_key = self.clips[index], (self.seed, pass_index, index)
        about = self._about(clip, rng_key, np.random.default_rng(rng_key))
        return {**about, "source": self._source(clip, rng_key), "length": self.num_frames}

    @property
    def fixed(self) -> list[bool]:
        """Of each item, whether its signal is the same in every pass."""
        return [not self.random_crop] * len(self)

    def _about(
        self, clip: CaptionedClip, rng_key: tuple[int, int, int], generator: np.random.Generator
    ) -> dict[str, Any]:
        captions = list(clip.captions)
        if self.captions_per_clip is not None:
            captions = _draw(captions, self.captions_per_clip, generator)
        return {"label": captions, "name": clip.name, "rng_key": rng_key, "fixed": not self.random_crop}

    def _source(self, clip: CaptionedClip, rng_key: tuple[int, int, int]) -> str | None:
        file = file_state(clip.path)
        if file is None or (self.random_crop and self.captions_per_clip is not None):
            return None  # the captions are drawn after the crop, which depends on the size of the frames
        crop = f"\tcrop {rng_key}" if self.random_crop else ""
        return f"{file}\t{self.num_frames} frames of {self.frame_size}{crop}"

    def _crop(self, frames: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        top, left = (int(generator.integers(side - self.frame_size + 1)) for side in frames.shape[-2:])
        return frames[..., top : top + self.frame_size, left : left + self.frame_size].contiguous()


class _Videos:
    """The videos below a folder, by the names that annotations have for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        paths = find_videos(folder)
        for name_of in (_path_within, _path_without_suffix, _file_name, _stem):
            named: dict[str, list[Path]] = {}
            for path in paths:
                named.setdefault(name_of(path, folder), []).append(path)
            self._by_name = named | self._by_name

    def find(self, name: str) -> Path | None:
        """The file of an id, a file name or a path within the folder, never outside; of another suffix if need be.

        A path within the folder goes before the name of a file below it. Of files of the same name and several
        suffixes in one folder, the first; raises UserError for such in several.
        """
        if (path := Path(name)).is_absolute():
            return next((each for each in self._by_name.get(path.name, ()) if each == path), None)
        without = name[: -len(path.suffix)] if path.suffix.lower() in VIDEO_SUFFIXES else name
        found = self._by_name.get(name) or self._by_name.get(without) or [None]
        if len({path and path.resolve().parent for path in found}) > 1:
            raise UserError(
                f"which video is {name!r}: {found[0]} or {found[1]}? Name it by its path in {self.folder}, "
                f"such as {_path_without_suffix(found[0], self.folder)!r}, or give the folder of just one of them"
            )
        return found[0]


def _path_within(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _path_without_suffix(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _file_name(path: Path, folder: Path) -> str:
    return path.name


def _stem(path: Path, folder: Path) -> str:
    return path.stem


def _folder(config: CaptionCorpusConfig) -> Path:
    return Path(config.file_path).expanduser().absolute() if config.file_path else demo_vatex()


def _draw(captions: Sequence[str], count: int, generator: np.random.Generator) -> list[str]:
    rounds = -(-count // len(captions))
    order = [index for _ in range(rounds) for index in generator.permutation(len(captions))]
    return [captions[index] for index in order[:count]]


def _report_missing(split: str, missing: Sequence[str], num_listed: int, log_path: Path | None) -> None:
    where = ""
    if log_path is not None:
        _add_lines(Path(log_path), [f"{printable(name)}\tmissing" for name in missing])
        where = f", listed in {log_path}"
    covered = num_listed - len(missing)
    log.warning(
        "%s: %d of %d clips are missing%s; the other %d (%.1f %%) are used",
        split, len(missing), num_listed, where, covered, 100 * covered / num_listed,
    )  # fmt: skip


def _add_lines(path: Path, lines: Sequence[str]) -> None:
    """To those of other splits and of an earlier leg of the run, each line once."""
    earlier = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    write_atomically(path, "".join(f"{line}\n" for line in dict.fromkeys([*earlier, *lines])))


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_IN_MESSAGE} more" if len(names) > NAMED_IN_MESSAGE else ""
    return ", ".join(names[:NAMED_IN_MESSAGE]) + more
