"""Video files as clips of frames: finding them, and reading evenly spaced frames, decoding no more than it takes."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from mynah.utility.data.media_files import UnreadableMedia, find_files, why_unopenable
from mynah.utility.video.packets import (
    Timeline,
    decode_all,
    decode_runs,
    list_packets,
    shown_times,
    wanted_runs,
)

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".ogv", ".gif",
)  # fmt: skip

# FFmpeg's names of the formats of these files. It goes by what is in a file, not by its name, and would follow a
# playlist to other files and addresses.
FORMATS = "mov,avi,matroska,mpeg,mpegvideo,asf,flv,mpegts,ogg,gif"

# swscale's bilinear filter widens as it shrinks a picture, so it averages over the pixels that fall into one, as
# torchvision's antialiased one does. The other flags make it exact, and with that the same on every processor.
INTERPOLATION = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
)
DEFAULT_RATE = Fraction(25)  # frames per second, of files that tell neither a rate nor times

Convert = Callable[[VideoFrame], np.ndarray]


class UnreadableVideo(UnreadableMedia):
    """A video file that cannot be used."""


MAX_PIXELS = 36_000_000
"""Of a frame; 8K has 33 million. FFmpeg would decode one of a billion, if memory allowed."""
MAX_ASPECT = 32
"""The longest side of a frame in shorter sides: resized by its shorter side, a longer one would fill the memory."""


def find_videos(root: Path) -> list[Path]:
    """All video files below `root`, by suffix, sorted; links are followed, hidden files are not videos.

    Raises UserError where `root` is missing, is no folder, holds no video, or may not be read.
    """
    return find_files(root, VIDEO_SUFFIXES, "videos")


def read_clip(
    path: str | os.PathLike,
    num_frames: int,
    size: int | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> torch.Tensor:
    """`num_frames` frames evenly spaced in time over a file or a part of it: (num_frames, 3, H, W) uint8 RGB.

    The time from `start_s` to `end_s` (seconds from the first frame on; None is the file's start or end) is cut into
    `num_frames` equal spans, and the frame that a player shows at the middle of each is taken: the last one whose
    presentation time is not later. So frames of a variable rate come by their times, and those of a short clip are
    repeated. A file that breaks off ends with its last whole frame.

    size: pixels of the shorter side, the longer one in proportion (rounded down), bilinear; None keeps the file's.
    The display matrix (rotation and mirroring by multiples of 90 degrees) is applied; pixels are taken to be square.
    The frames are the same as with everything decoded, but where that is known to suffice, only some are: stretches
    between key frames are left out by seeking, and frames that no other one refers to are skipped.
    max_pixels: of a frame of the file; a larger one is not decoded.
    Raises UnreadableVideo for what is missing, forbidden, no video, too large or too narrow, ends before `start_s`,
    or cannot be decoded.
    """
    if num_frames < 1 or (size is not None and size < 1):
        raise ValueError(f"num_frames and size must be 1 or more, got {num_frames} and {size}")
    if (start_s or 0) < 0 or (end_s is not None and end_s <= (start_s or 0)):
        raise ValueError(f"0 <= start_s < end_s must hold, got {start_s} and {end_s}")
    path = Path(path).absolute()  # FFmpeg takes "name:rest" for a protocol, but not after a slash
    request = _Request(path, num_frames, (start_s, end_s), max_pixels, _converter(size))
    frames = _read_selectively(request)
    if frames is None:
        frames = _read_everything(request)
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class _Request:
    """What read_clip is asked for; span: start_s and end_s."""

    path: Path
    num_frames: int
    span: tuple[float | None, float | None]
    max_pixels: int
    convert: Convert


def _read_selectively(request: _Request) -> list[np.ndarray] | None:
    """The frames, by decoding what they need; None where the file's packets do not tell, or a frame fails."""
    with _open(request) as (container, stream):
        packets = list_packets(container, stream)
        times = shown_times(packets)
        if not times or _times_are_guessed(container, stream):
            return None
        timeline = _timeline(times, max(packet.duration for packet in packets if packet.pts == times[-1]), stream)
        wanted = [times[index] for index in _sample(request, timeline)]
        distinct = set(wanted)
        runs = wanted_runs(packets, distinct)
        frames = decode_runs(container, stream, packets, runs, distinct)
        pictures = {frame.pts: request.convert(frame) for frame in _of_allowed_size(frames, request)}
        return None if len(pictures) < len(distinct) else [pictures[time] for time in wanted]


def _read_everything(request: _Request) -> list[np.ndarray]:
    """The frames, by decoding all of the file twice: for their times, then for the frames themselves."""
    with _open(request, threads=1) as (container, stream):
        found = [(frame.pts, frame.duration) for frame in _of_allowed_size(decode_all(container, stream), request)]
        if not found:
            raise UnreadableVideo(request.path, "no frame of it can be decoded")
        if any(time is None for time, _ in found):
            timeline = Timeline(range(len(found)), len(found), 1 / (stream.average_rate or DEFAULT_RATE))
        else:
            # Times that are guessed may be in the wrong order; the decoder's own order is right.
            timeline = _timeline(sorted(time for time, _ in found), found[-1][1] or 0, stream)
    wanted = _sample(request, timeline)
    distinct = set(wanted)
    with _open(request, threads=1) as (container, stream):
        frames = enumerate(decode_all(container, stream))
        pictures = {index: request.convert(frame) for index, frame in frames if index in distinct}
    if len(pictures) < len(distinct):
        raise UnreadableVideo(request.path, "damaged: what can be decoded of it differs from time to time")
    return [pictures[index] for index in wanted]


def _times_are_guessed(container: InputContainer, stream: VideoStream) -> bool:
    """AVI stores no presentation times; where there are B-frames, FFmpeg guesses them, and often wrongly."""
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def _timeline(times: list[int], last_duration: int, stream: VideoStream) -> Timeline:
    """last_duration: of the last frame, in ticks; 0 where the file does not tell, then a mean frame's."""
    if last_duration <= 0:
        gaps = len(times) - 1
        frame_ticks = 1 / (stream.average_rate or DEFAULT_RATE) / stream.time_base
        last_duration = max(1, round((times[-1] - times[0]) / gaps if gaps else frame_ticks))
    return Timeline(times, times[-1] + last_duration, stream.time_base)


def _sample(request: _Request, timeline: Timeline) -> list[int]:
    start_s, end_s = request.span
    if (start_s or 0) >= timeline.seconds:
        raise UnreadableVideo(request.path, f"ends at {timeline.seconds:.2f} s, before the part from {start_s} s on")
    return timeline.sample(request.num_frames, start_s, end_s)


def _of_allowed_size(frames: Iterable[VideoFrame], request: _Request) -> Iterator[VideoFrame]:
    for frame in frames:  # a stream may change its size
        _check_size(request, frame.width, frame.height)
        yield frame


def _check_size(request: _Request, width: int, height: int) -> None:
    if width * height > request.max_pixels:
        most = request.max_pixels / 1e6
        raise UnreadableVideo(request.path, f"{width} x {height} pixels; at most {most:g} million are read")
    if max(width, height) > MAX_ASPECT * max(1, min(width, height)):
        raise UnreadableVideo(
            request.path, f"{width} x {height} pixels; one side is over {MAX_ASPECT} times the other"
        )


@contextmanager
def _open(request: _Request, threads: int | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream, closed in the end; None: as many decoding threads as suit the process."""
    path = request.path
    if reason := why_unopenable(path):
        raise UnreadableVideo(path, reason)
    av.logging.set_level(None)  # FFmpeg's complaints would go to the terminal; ours are exceptions
    try:
        container = av.open(str(path), options={"format_whitelist": FORMATS}, metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise UnreadableVideo(path, f"no video, or cut off ({_error_text(error)})") from error
    with container:
        stream = _video_stream(container, path)
        _check_size(request, stream.codec_context.width, stream.codec_context.height)
        if threads is None:  # the worker processes of a data loader share the cores as it is
            threads = 0 if torch.utils.data.get_worker_info() is None else 1
        stream.codec_context.thread_count = threads
        stream.thread_type = "NONE" if threads == 1 else "AUTO"
        try:
            yield container, stream
        except av.FFmpegError as error:
            raise UnreadableVideo(path, f"cannot be decoded ({_error_text(error)})") from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first one that is not the cover picture of a sound file."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        others = sorted({stream.type for stream in container.streams})
        raise UnreadableVideo(path, f"has no video, only {' and '.join(others)}" if others else "holds nothing")
    if streams[0].codec_context is None:
        raise UnreadableVideo(path, "its video is of a kind that FFmpeg cannot decode")
    return streams[0]


def _error_text(error: Exception) -> str:
    """FFmpeg's reason without the path, which PyAV's messages repeat."""
    return getattr(error, "strerror", None) or str(error)


def _converter(size: int | None) -> Convert:
    """A function from a decoded frame to (H, W, 3) uint8 RGB as it is to be seen, its shorter side `size` pixels."""
    reformatter = VideoReformatter()

    def convert(frame: VideoFrame) -> np.ndarray:
        shorter = min(frame.width, frame.height)
        scaled = [side if size is None else side * size // shorter for side in (frame.width, frame.height)]
        resized = reformatter.reformat(frame, *scaled, "rgb24", interpolation=INTERPOLATION, threads=1)
        return np.ascontiguousarray(turn(resized.to_ndarray(), display_matrix(frame)))

    return convert


def display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """(2, 2): where a step to the right leads on the screen (x, y; column 0), and a step down (column 1); or None."""
    try:
        matrices = [bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
    except ValueError:  # beside data of a kind that PyAV has no name for, such as EXIF, it tells the angle alone
        cosine, sine = (round(part(math.radians(frame.rotation))) for part in (math.cos, math.sin))
        return np.array([[cosine, sine], [-sine, cosine]])
    return np.frombuffer(matrices[0], np.int32).reshape(3, 3)[:2, :2].T if matrices else None


def turn(picture: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """picture: (H, W, 3), as players show it: mirrored, turned by the multiple of 90 degrees next to `matrix`."""
    if matrix is None:
        return picture
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):  # a step down leads sideways: rows become columns
        picture, matrix = picture.swapaxes(0, 1), matrix[:, ::-1]
    if matrix[0, 0] < 0:
        picture = picture[:, ::-1]
    return picture[::-1] if matrix[1, 1] < 0 else picture
