"""Predictions for files and folders, without Lightning."""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.downstream.build import TaskOptions, find_trained, rebuild
from mynah.utility.audio.files import (
    SAMPLE_RATE,
    UnreadableAudio,
    audio_info,
    find_audio,
    read_audio,
    trim_silence,
    with_gain,
)
from mynah.utility.configuration.several import as_several
from mynah.utility.data.media_files import UnreadableMedia, printable
from mynah.utility.errors import UserError, is_lack_of_memory
from mynah.utility.experiments.folder import make_writable
from mynah.utility.training.device import check_device
from mynah.utility.video.files import find_videos, read_clip

log = logging.getLogger("mynah")

Window = tuple[Tensor, int]


@dataclass(frozen=True)
class Prediction:
    """What the task says of one file."""

    path: Path
    result: dict[str, Any] = field(default_factory=dict)
    """Plain values, as the expert's `predict` gives them."""
    text: str = ""
    """The same as a line for people."""
    error: UnreadableMedia | None = None
    """Why the file could not be read; the result is empty then."""


def predict(
    options: TaskOptions, inputs: str | Path | Sequence[str | Path], pictures: Path | None = None
) -> Iterator[Prediction]:
    """Predictions of a trained task (`options.resume`) for files and for those in folders, one at a time.

    pictures: a folder for a picture of each prediction, where the task draws any. Raises UserError.
    """
    check_device(options.device)
    if pictures:
        make_writable(pictures, "--pictures")
    task = rebuild(options, find_trained(options, writes=False))
    model = task.model.to("cuda" if _use_cuda(options.device) else "cpu")
    kind = INPUTS[model.expert.modality]
    drawn: set[Path] = set()
    first: Prediction | None = None
    for given in as_several(inputs):
        try:
            paths = _files_of(given, kind)
        except UnreadableMedia as error:
            yield Prediction(Path(given), error=error)
            continue
        for path in paths:
            picture = pictures and _unused_name(pictures / f"{path.stem}.png", drawn)
            try:
                windows, samples = kind.read(path, model.features.upstream, task.config)
                result = model.predict(windows, str(path), samples, picture)
            except UnreadableMedia as error:
                yield Prediction(path, error=error)
            except (MemoryError, RuntimeError) as error:
                if not is_lack_of_memory(error):
                    raise
                reason = "too little memory for it; lower inference.max_seconds, or set inference.window_seconds"
                yield Prediction(path, error=UnreadableMedia(path, reason))
            else:
                if first is not None:
                    result |= model.expert.compare_predictions(result, first.result, first.path)
                prediction = Prediction(path, result, model.expert.format_prediction(result))
                first = first or prediction
                yield prediction


def _files_of(given: str | Path, kind: "InputKind") -> list[Path]:
    """A file, or those in a folder. Raises UnreadableMedia where there are none."""
    path = Path(given)
    if not str(given).strip():
        raise UnreadableMedia(path, "the input is given as an empty text")
    if not path.is_dir():
        return [path]
    try:
        return kind.find(path)
    except UserError as error:
        raise UnreadableMedia(path, str(error)) from error


@dataclass(frozen=True)
class InputKind:
    """find: a folder -> the files in it; read: (file, upstream, task's configuration) -> windows of its signal, each
    with the file's sample or frame that it begins with, and the file's length.

    Both `read` and the iteration over its windows raise UnreadableMedia.
    """

    find: Callable[[Path], list[Path]]
    read: Callable[[Path, Any, Any], tuple[Iterable[Window], int]]


def _read_speech(path: Path, upstream: Any, config: Any) -> tuple[Iterable[Window], int]:
    bounds, samples = config.inference, audio_info(path).samples
    changes = config.signal_changes
    seconds = samples / SAMPLE_RATE
    if 0 < bounds.window_seconds < seconds:
        shortest = samples // _num_windows(samples, bounds.window_seconds)
        if shortest < upstream.min_samples:
            raise UnreadableAudio(
                path,
                f"inference.window_seconds={bounds.window_seconds:g} makes windows of {shortest} samples at 16 kHz, "
                f"but {upstream.name} needs {upstream.min_samples}; give a longer window",
            )
        return _speech_windows(path, samples, bounds.window_seconds, changes.gain_db), samples
    if seconds > bounds.max_seconds:
        raise UnreadableAudio(
            path,
            f"{seconds:.0f} s long, more than inference.max_seconds={bounds.max_seconds:g}; raise it, or have such "
            "files encoded in windows with -o inference.window_seconds=30",
        )
    wav, start = read_audio(path), 0
    if changes.trim_silence:
        wav, start = trim_silence(wav)
    if len(wav) < upstream.min_samples:
        raise UnreadableAudio(path, f"too short ({len(wav)} samples at 16 kHz)")
    return [(with_gain(wav, changes.gain_db), start)], samples


def _num_windows(samples: int, window_seconds: float) -> int:
    return math.ceil(samples / (window_seconds * SAMPLE_RATE))


def _speech_windows(path: Path, samples: int, window_seconds: float, gain_db: float) -> Iterator[Window]:
    """The file in equal parts of at most `window_seconds`, each read when it is needed."""
    count = _num_windows(samples, window_seconds)
    log.info(
        "%s: %.0f s, encoded in %d windows of %.1f s: each is normalized, and attends, by itself; silence stays",
        *(printable(str(path)), samples / SAMPLE_RATE, count, samples / SAMPLE_RATE / count),
    )
    for index in range(count):
        start, stop = index * samples // count, (index + 1) * samples // count
        yield with_gain(read_audio(path, start, stop - start), gain_db), start


def _read_video(path: Path, upstream: Any, config: Any) -> tuple[Iterable[Window], int]:
    max_pixels = int(config.inference.max_megapixels * 1e6)
    clip = read_clip(path, upstream.frames_per_clip, upstream.frame_size, max_pixels=max_pixels)
    return [(clip, 0)], len(clip)


INPUTS: dict[str, InputKind] = {
    "speech": InputKind(find_audio, _read_speech),
    "video": InputKind(find_videos, _read_video),
}


def _use_cuda(device: str) -> bool:
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def _unused_name(path: Path, used: set[Path]) -> Path:
    """`path`, or where it is in `used` NAME_2, NAME_3, ...; adds what it returns to `used`."""
    names = (path.with_stem(f"{path.stem}_{number}") if number > 1 else path for number in itertools.count(1))
    found = next(name for name in names if name not in used)
    used.add(found)
    return found
