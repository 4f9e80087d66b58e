"""Reading evenly spaced frames of videos: all decoded in order, only what they need, and from the frame cache.

python benchmarks/video_decoding.py --videos FOLDER
python benchmarks/video_decoding.py --frames 8 --steps 1   # of clips with a key frame every second, made on the spot

Each row is the mean over the videos of seconds a clip, by turns; the frames of all ways are checked to be the same.
"""

import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from statistics import mean, median

import av
import numpy as np
import torch
from report import Report, Row, build_parser, clock, peak_mib, prepare

from mynah.utility.video.files import DEFAULT_RATE, INTERPOLATION, UnreadableVideo, find_videos, read_clip
from mynah.utility.video.frame_cache import FrameCache
from mynah.utility.video.writing import write_clip

Read = Callable[[Path, int, int, float | None], torch.Tensor]
"""(path, frames, pixels of the shorter side, first second) -> clip."""

MADE_CLIPS, MADE_SECONDS, MADE_RATE = 3, 10, 25


def main() -> None:
    parser = build_parser(__doc__, steps=3)
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="of videos to read instead of made ones")
    parser.add_argument("--frames", type=int, default=32, help="of each clip")
    parser.add_argument("--size", type=int, default=224, help="pixels of a frame's shorter side")
    parser.add_argument("--start", type=float, help="first second that is read, instead of the whole clip")
    arguments = prepare(parser)
    with tempfile.TemporaryDirectory() as folder:
        videos = find_videos(arguments.videos or make_videos(Path(folder)))
        cache = FrameCache(Path(folder) / "cache")
        ways: dict[str, Read] = {"all decoded": decode_all, "read_clip": read_clip_from}
        if arguments.start is None:  # the cache keeps whole clips
            ways["frame cache"] = lambda path, num_frames, size, _: cache.read(path, num_frames, size)
        seconds = {way: [] for way in ways}
        for path in videos:
            try:
                times = measure_by_turns(ways, path, arguments)
            except UnreadableVideo as error:
                print(f"left out: {error}")
                continue
            print(path.name, ", ".join(f"{way} {1000 * taken:.1f} ms" for way, taken in times.items()))
            for way, taken in times.items():
                seconds[way].append(taken)
    report = Report(arguments)
    for way, each in seconds.items():
        report.add(Row(f"{way}: {arguments.frames} frames of {arguments.size}", mean(each), peak_mib=peak_mib("cpu")))
    report.print()


def measure_by_turns(ways: dict[str, Read], path: Path, arguments) -> dict[str, float]:
    """The median seconds of each way for one video, by turns: a machine is not equally fast at all times."""
    request = (path, arguments.frames, arguments.size, arguments.start)
    clips = {"read_clip": read_clip_from(*request)}
    clips |= {way: read(*request) for way, read in ways.items()}  # and so all are warm
    for way, clip in clips.items():
        if not torch.equal(clip, clips["read_clip"]):
            print(f"{path.name}: {way} gives other frames than read_clip")
    taken = {way: [] for way in ways}
    for _ in range(arguments.steps):
        for way, read in ways.items():
            taken[way].append(clock(lambda read=read: read(*request), "cpu"))
    return {way: median(each) for way, each in taken.items()}


def read_clip_from(path: Path, num_frames: int, size: int, start_s: float | None) -> torch.Tensor:
    return read_clip(path, num_frames, size, start_s)


def decode_all(path: Path, num_frames: int, size: int, start_s: float | None) -> torch.Tensor:
    """Every frame decoded, in order, and those converted that lie in the middle of equal spans of the frames.

    For a constant rate these are the ones that read_clip takes; rotation flags are not looked at.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        count = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        container.seek(0)
        first = Fraction(str(start_s or 0)) * (stream.average_rate or DEFAULT_RATE)
        wanted = {int(first + (count - first) * (2 * span + 1) / (2 * num_frames)) for span in range(num_frames)}
        pictures = []
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                shorter = min(frame.width, frame.height)
                sides = (frame.width * size // shorter, frame.height * size // shorter)
                pictures.append(frame.reformat(*sides, "rgb24", interpolation=INTERPOLATION, threads=1).to_ndarray())
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def make_videos(folder: Path) -> Path:
    """Clips of a moving texture, which takes about as much to decode as a filmed one."""
    draw = np.random.default_rng(0)
    for number in range(MADE_CLIPS):
        scene = torch.from_numpy(draw.uniform(0, 255, (1, 3, 40, 60))).float()
        scene = torch.nn.functional.interpolate(scene, (480, 720), mode="bicubic")[0].clamp(0, 255).byte()
        scene = scene.permute(1, 2, 0).numpy()
        frames = np.stack([scene[i // 2 : i // 2 + 240, i : i + 320] for i in range(MADE_SECONDS * MADE_RATE)])
        write_clip(folder / f"{number}.mp4", frames, MADE_RATE, options={"g": str(MADE_RATE), "bf": "2"})
    return folder


if __name__ == "__main__":
    main()
