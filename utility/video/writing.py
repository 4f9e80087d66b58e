"""Writing clips as H.264 in mp4 (or whatever container the file's suffix names)."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

FINE_TICK = Fraction(1, 60_000)  # of a second, for variable rates; MPEG-4 part 2 allows no finer one than 1 / 65535

CONVERSION = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def write_clip(
    path: Path,
    frames: np.ndarray,
    fps: float,
    *,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    times_s: Sequence[float] | None = None,
    rotation: int = 0,
    mirrored: bool = False,
    container_options: Mapping[str, str] | None = None,
) -> None:
    """Write frames, (T, H, W, 3) uint8 RGB, H and W even.

    options: of the encoder, such as {"g": "12"} for a key frame every 12 frames, {"bf": "2"} for B-frames.
    times_s: when each frame appears, ascending, for a variable rate; else they follow at `fps`.
    rotation: degrees counterclockwise by which a player turns the frames; mirrored: left and right change after that.
    container_options: such as {"movflags": "faststart"} for the index at the front.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"expected (T, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
    rate = Fraction(fps).limit_denominator(1001)
    tick = 1 / rate if times_s is None else FINE_TICK
    ticks = range(len(frames)) if times_s is None else [round(time_s / tick) for time_s in times_s]
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = tick
        stream.codec_context.thread_count = 1  # several threads may give other bytes
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        converter = VideoReformatter()
        for picture, time in zip(frames, ticks, strict=True):
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = converter.reformat(rgb, format="yuv420p", interpolation=CONVERSION, threads=1)
            frame.pts, frame.time_base = time, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
