"""Files for `-m inference`: how each modality finds and reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.utility.audio.files import UnreadableAudio, find_audio, read_audio, trim_silence
from mynah.utility.video.files import find_videos, read_clip


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
