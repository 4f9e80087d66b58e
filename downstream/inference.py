"""Predictions for files and folders, without Lightning."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.downstream.build import TaskOptions, find_trained, rebuild
from mynah.utility.audio.files import UnreadableAudio, find_audio, read_audio, trim_silence
from mynah.utility.data.media_files import UnreadableMedia
from mynah.utility.experiments.folder import make_writable
from mynah.utility.training.device import check_device
from mynah.utility.video.files import find_videos, read_clip


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


def predict(options: TaskOptions, inputs: Sequence[str | Path], pictures: Path | None = None) -> Iterator[Prediction]:
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
    for given in map(Path, inputs):
        for path in kind.find(given) if given.is_dir() else [given]:
            try:
                signal = kind.read(path, model.features.upstream, task.config)
            except UnreadableMedia as error:
                yield Prediction(path, error=error)
                continue
            result = model.predict(signal, pictures and _unused_name(pictures / f"{path.stem}.png", drawn))
            yield Prediction(path, result, model.expert.format_prediction(result))


@dataclass(frozen=True)
class InputKind:
    """find: a folder -> the files in it; read: (file, upstream, task's configuration) -> a signal.

    `read` raises UnreadableMedia.
    """

    find: Callable[[Path], list[Path]]
    read: Callable[[Path, Any, Any], Tensor]


def _read_speech(path: Path, upstream: Any, config: Any) -> Tensor:
    wav = read_audio(path)
    if getattr(config.datarc, "trim_silence", False):  # as the task was trained
        wav = trim_silence(wav)
    if len(wav) < upstream.min_samples:
        raise UnreadableAudio(path, f"too short ({len(wav)} samples at 16 kHz)")
    return wav


def _read_video(path: Path, upstream: Any, config: Any) -> Tensor:
    return read_clip(path, upstream.frames_per_clip, upstream.frame_size)


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
