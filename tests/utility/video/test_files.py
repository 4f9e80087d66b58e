"""utility/video/files.py: frames of real and of generated files, against decoding everything with PyAV alone."""

import io
import os
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from PIL import Image

from mynah.utility.errors import UserError
from mynah.utility.video import files as video
from mynah.utility.video import packets as video_frames
from mynah.utility.video.files import INTERPOLATION, UnreadableVideo, find_videos, read_clip
from mynah.utility.video.writing import write_clip

HEIGHT, WIDTH = 48, 64
BITS = 8  # a frame's number, as a row of black and white fields


def numbered_frames(count: int) -> np.ndarray:
    """(count, HEIGHT, WIDTH, 3): frames that show their number, and something that moves."""
    frames = np.full((count, HEIGHT, WIDTH, 3), 90, np.uint8)
    for number in range(count):
        for bit in range(BITS):
            frames[number, :24, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
        frames[number, 30:42, 3 * number % 50 : 3 * number % 50 + 12] = (220, 40, 40)
    return frames


def numbers(clip: torch.Tensor) -> list[int]:
    """What numbered_frames were read; clip: (T, 3, HEIGHT, WIDTH)."""
    fields = clip.float().mean(dim=1)[:, 4:20].unflatten(-1, (BITS, 8))[..., 2:6].mean(dim=(1, 3))
    return [int(number) for number in ((fields > 127) * 2 ** torch.arange(BITS)).sum(dim=1)]


def everything(path: Path, size: int | None = None) -> tuple[list[float], list[np.ndarray]]:
    """Seconds from the first frame on (and of the end), and pictures, of all frames in the order of display.

    The decoder gives them in that order; AVI's times are known to be right as a set only.
    """
    reformatter = VideoReformatter()
    times, pictures = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            times.append(frame.pts * stream.time_base)
            last_duration = frame.duration * stream.time_base or 1 / stream.average_rate
            sides = np.array([frame.width, frame.height])
            scaled = sides if size is None else sides * size // sides.min()
            picture = reformatter.reformat(frame, *map(int, scaled), "rgb24", interpolation=INTERPOLATION)
            pictures.append(picture.to_ndarray())
    times.sort()
    return [time - times[0] for time in [*times, times[-1] + last_duration]], pictures


def expected(
    path: Path, requests: list[tuple[int, float | None, float | None]], size: int | None = None
) -> list[np.ndarray]:
    """The (num_frames, 3, H, W) of each request (num_frames, start_s, end_s), chosen from everything."""
    (*times, end), pictures = everything(path, size)
    clips = []
    for num_frames, start_s, end_s in requests:
        start, stop = Fraction(str(start_s or 0)), min(end, Fraction(str(end_s)) if end_s else end)
        chosen = []
        for span in range(num_frames):
            middle = start + (stop - start) * (2 * span + 1) / (2 * num_frames)
            chosen.append(max(index for index, time in enumerate(times) if time <= middle))
        clips.append(np.stack([pictures[index] for index in chosen]).transpose(0, 3, 1, 2))
    return clips


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """How many frames the decoder gave, an entry for each packet that it was given."""
    counts = []

    def decode(stream, packet, original=video_frames._decode):
        frames = original(stream, packet)
        counts.append(len(frames))
        return frames

    monkeypatch.setattr(video_frames, "_decode", decode)
    return counts


@pytest.fixture
def no_second_way(monkeypatch) -> None:
    """The frames must be found without decoding everything."""

    def refuse(*_arguments):
        raise AssertionError("decoded everything")

    monkeypatch.setattr(video, "_read_everything", refuse)


REAL_CLIPS = (
    "G0mjFqytJt4_000152_000162.mp4",
    "arm_wrestling.mp4",
    "baby_reading.mp4",
    "basketball.mp4",
    "dancing.mp4",
    "eye_makeup.avi",
    "peppers.mp4",
    "pool_cleaning.mp4",
    "yoga.mp4",
)


@pytest.mark.parametrize("name", REAL_CLIPS)
def test_frames_of_real_clips_are_those_of_decoding_everything(shared_data, name):
    path = shared_data / "VATEX" / "videos" / name
    requests = [(8, None, None), (3, 5.0, None), (2, 1.25, 2.5)]
    for request, frames in zip(requests, expected(path, requests, size=64), strict=True):
        np.testing.assert_array_equal(read_clip(path, request[0], 64, *request[1:]).numpy(), frames)


H264, QUIET_H265 = "libx264", {"x265-params": "log-level=none:keyint=10:open-gop=1"}
FILES = {
    "one key frame.mp4": (H264, {"g": "250"}),
    "many key frames.mp4": (H264, {"g": "5"}),
    "only key frames.mp4": (H264, {"g": "1"}),
    "B-frames.mp4": (H264, {"g": "20", "bf": "3", "x264-params": "b-pyramid=normal:scenecut=0"}),
    "open groups.mp4": (H264, {"g": "10", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}),
    "no key frames but one.mp4": (H264, {"g": "10", "x264-params": "intra-refresh=1"}),
    "H.265.mp4": ("libx265", QUIET_H265),
    "Matroska.mkv": (H264, {"g": "10", "bf": "2"}),
    "VP9.webm": ("libvpx-vp9", {"g": "10", "deadline": "realtime", "cpu-used": "8"}),
    "MPEG-4.avi": ("mpeg4", {"g": "12"}),
    "MPEG-4 with B-frames.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "MPEG-4.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "MPEG-2.ts": ("mpeg2video", {"g": "12", "bf": "2"}),
    "transport stream.ts": (H264, {"g": "12", "bf": "2"}),
    "QuickTime.mov": (H264, {"g": "12"}),
}


@pytest.mark.parametrize("name", FILES)
def test_frames_of_any_kind_of_file_are_those_of_decoding_everything(tmp_path, name):
    codec, options = FILES[name]
    write_clip(tmp_path / name, numbered_frames(60), 25, codec=codec, options=options)
    requests = [(60, None, None), (7, None, None), (3, None, None), (1, None, None), (4, 1.5, None), (3, 0.5, 0.8)]
    for request, frames in zip(requests, expected(tmp_path / name, requests), strict=True):
        np.testing.assert_array_equal(read_clip(tmp_path / name, request[0], None, *request[1:]).numpy(), frames)


def test_the_numbers_in_the_frames_say_that_they_are_the_right_ones(tmp_path):
    path = tmp_path / "a.mp4"
    write_clip(path, numbered_frames(60), 25, options={"g": "10", "bf": "3"})
    assert numbers(read_clip(path, 60)) == list(range(60))
    assert numbers(read_clip(path, 6)) == [5, 15, 25, 35, 45, 55]
    assert numbers(read_clip(path, 2, None, 0.4, 0.8)) == [12, 17]  # 0.5 s and 0.7 s, at 25 frames a second
    assert numbers(read_clip(path, 120)) == [number // 2 for number in range(120)]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_are_in_their_order_where_the_file_has_no_presentation_times(tmp_path, codec):
    path = tmp_path / "a.avi"
    write_clip(path, numbered_frames(60), 25, codec=codec, options={"g": "12", "bf": "2"})
    assert numbers(read_clip(path, 60)) == list(range(60))
    assert numbers(read_clip(path, 6)) == [5, 15, 25, 35, 45, 55]


@pytest.mark.parametrize("name", ["many key frames.mp4", "Matroska.mkv", "transport stream.ts", "MPEG-4.avi"])
def test_stretches_between_key_frames_are_left_out(tmp_path, decoded, no_second_way, name):
    codec, options = FILES[name]
    write_clip(tmp_path / name, numbered_frames(120), 25, codec=codec, options=options)
    clip = read_clip(tmp_path / name, 3)
    assert numbers(clip) == [20, 60, 100]
    assert sum(decoded) < 40
    decoded.clear()
    assert numbers(read_clip(tmp_path / name, 1, None, 4.0)) == [110]
    assert sum(decoded) < 20


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"g": "250", "x264-params": "b-adapt=0:scenecut=0"}),
        ("libx265", {"x265-params": "log-level=none:keyint=250:b-adapt=0:scenecut=0:bframes=3"}),
        ("mpeg4", {"g": "250"}),
        ("mpeg2video", {"g": "250"}),
    ],
)
def test_frames_that_no_other_one_refers_to_are_skipped(tmp_path, decoded, no_second_way, codec, options):
    path = tmp_path / "a.mp4"
    write_clip(path, numbered_frames(60), 25, codec=codec, options={"bf": "3", **options})
    expected = everything(path)[1]
    clip = read_clip(path, 4)
    np.testing.assert_array_equal(clip.permute(0, 2, 3, 1).numpy(), [expected[index] for index in (7, 22, 37, 52)])
    assert len(decoded) >= 50
    assert sum(decoded) < 35


def test_frames_of_a_variable_rate_are_taken_by_their_times(tmp_path):
    times_s = [0, 0.1, 0.2, 0.3, 1.0, 3.0, 3.1, 3.5]
    path = tmp_path / "a.mp4"
    write_clip(path, numbered_frames(8), 10, times_s=times_s, options={"bf": "2", "g": "4"})
    assert numbers(read_clip(path, 8, None, 0, 3.2)) == [2, 3, 4, 4, 4, 4, 4, 5]
    assert numbers(read_clip(path, 4, None, 0, 0.4)) == [0, 1, 2, 3]


def test_one_frame_is_repeated(tmp_path):
    write_clip(tmp_path / "a.mp4", numbered_frames(6)[5:], 25)
    assert numbers(read_clip(tmp_path / "a.mp4", 3)) == [5, 5, 5]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_rotation_flag_is_applied(tmp_path, degrees, mirrored):
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2], picture[: HEIGHT // 2, WIDTH // 2 :] = (250, 0, 0), (0, 250, 0)
    picture[HEIGHT // 2 :, : WIDTH // 2] = (0, 0, 250)
    seen = np.rot90(picture, degrees // 90)
    if mirrored:
        seen = seen[:, ::-1]
    path = tmp_path / "a.mp4"
    write_clip(path, picture[None], 25, options={"crf": "1"}, rotation=degrees, mirrored=mirrored)
    frame = read_clip(path, 1)[0].permute(1, 2, 0).numpy().astype(int)
    assert frame.shape == seen.shape
    difference = np.abs(frame - seen).max(axis=-1)
    assert (difference < 30).mean() > 0.9  # but for colors blurred at the edges
    half = read_clip(path, 1, HEIGHT // 2)
    assert half.shape[-2:] == tuple(side // 2 for side in seen.shape[:2])


def test_the_orientation_of_a_cameras_jpeg_frames_is_applied(tmp_path):
    """EXIF data becomes a display matrix in FFmpeg, beside side data that PyAV has no name for."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[: HEIGHT // 2] = 250
    exif, jpeg, tick = Image.Exif(), io.BytesIO(), Fraction(1, 25)
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(picture).save(jpeg, "jpeg", exif=exif)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = WIDTH, HEIGHT, "yuvj420p", tick
        packet = av.Packet(jpeg.getvalue())
        packet.pts, packet.dts, packet.time_base, packet.stream, packet.is_keyframe = 0, 0, tick, stream, True
        container.start_encoding()
        container.mux(packet)
    frame = read_clip(tmp_path / "a.avi", 1)[0, 0].numpy().astype(int)
    assert np.abs(frame - np.rot90(picture[..., 0], -1)).max() < 60


def test_a_frame_that_cannot_be_converted_makes_the_file_unreadable(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise av.error.MemoryError(12, "Cannot allocate memory")

    write_clip(tmp_path / "a.mp4", numbered_frames(2), 25)
    monkeypatch.setattr(video, "VideoReformatter", lambda: SimpleNamespace(reformat=refuse))
    with pytest.raises(UnreadableVideo, match="cannot be decoded"):
        read_clip(tmp_path / "a.mp4", 2)


@pytest.mark.parametrize(("height", "width"), [(96, 130), (130, 96), (64, 64)])
def test_the_shorter_side_gets_the_size_asked_for(tmp_path, height, width):
    draw = np.random.default_rng(0)
    coarse = torch.from_numpy(draw.integers(0, 256, (2, 3, 7, 9))).float()
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255).byte()
    write_clip(tmp_path / "a.mp4", smooth.permute(0, 2, 3, 1).numpy(), 25, options={"crf": "1"})
    clip, whole = read_clip(tmp_path / "a.mp4", 2, 40), read_clip(tmp_path / "a.mp4", 2)
    shape = (40 * height // min(height, width), 40 * width // min(height, width))
    assert clip.shape == (2, 3, *shape)
    assert clip.dtype == torch.uint8
    assert clip.is_contiguous()
    reference = torch.nn.functional.interpolate(whole.float(), shape, mode="bilinear", antialias=True)
    assert (clip.float() - reference).abs().mean() < 1.5


def cut(path: Path, share: float) -> Path:
    """A copy that breaks off after that share of the bytes."""
    copy = path.with_name(f"cut {share} {path.name}")
    content = path.read_bytes()
    copy.write_bytes(content[: int(share * len(content))])
    return copy


@pytest.mark.parametrize(
    ("name", "container_options"),
    [
        ("a.mp4", {"movflags": "faststart"}),
        ("a.mkv", {}),
        ("a.ts", {}),
        ("a.avi", {}),
    ],
)
def test_of_a_file_that_breaks_off_the_frames_before_are_read(tmp_path, name, container_options):
    path, options = tmp_path / name, {"g": "12", "bf": "2"}
    write_clip(path, numbered_frames(100), 25, options=options, container_options=container_options)
    whole = read_clip(path, 100)
    clip = read_clip(cut(path, 0.6), 50)
    found = numbers(clip)
    assert found == sorted(found)
    assert found[0] == 0
    assert 30 < found[-1] < 80
    assert len(set(found)) > 30
    # Each is the frame of its number, not something half decoded.
    assert torch.equal(clip, whole[found])


def test_a_file_that_breaks_off_before_its_index_is_unreadable(tmp_path):
    write_clip(tmp_path / "a.mp4", numbered_frames(100), 25)
    with pytest.raises(UnreadableVideo, match="cut off"):
        read_clip(cut(tmp_path / "a.mp4", 0.9), 4)


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_file_whose_frames_are_all_cut_off_is_unreadable(tmp_path, share):
    noise = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    write_clip(tmp_path / "a.mkv", noise, 25, options={"crf": "1"})
    with pytest.raises(UnreadableVideo, match=r"no frame of it can be decoded|cut off"):
        read_clip(cut(tmp_path / "a.mkv", share), 4)


@pytest.mark.parametrize("seed", range(4))
def test_damage_in_the_middle_takes_no_frame_but_those_that_it_hits(tmp_path, seed, capfd):
    path = tmp_path / "a.mp4"
    write_clip(
        path, numbered_frames(100), 25, options={"g": "10", "bf": "2"}, container_options={"movflags": "faststart"}
    )
    whole = read_clip(path, 100)
    content, draw = bytearray(path.read_bytes()), random.Random(seed)
    media = content.index(b"mdat")
    for _ in range(3):
        place = draw.randrange(media + 500, len(content) - 60)
        content[place : place + 40] = draw.randbytes(40)
    path.write_bytes(content)
    for num_frames in (100, 10):
        clip = read_clip(path, num_frames)
        right = whole[:: 100 // num_frames] if num_frames == 100 else whole[5::10]
        same = [torch.equal(frame, other) for frame, other in zip(clip, right, strict=True)]
        assert sum(same) >= 0.6 * num_frames
    assert capfd.readouterr() == ("", "")


def test_a_damaged_wanted_frame_gives_way_to_the_one_before(tmp_path):
    path = tmp_path / "a.mp4"
    write_clip(path, numbered_frames(20), 10, options={"g": "1"})
    with av.open(str(path)) as container:
        place, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][7]
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    assert numbers(read_clip(path, 20)) == [*range(7), 6, *range(8, 20)]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mpeg2video"])
def test_a_half_damaged_frame_gives_way_too(tmp_path, codec):
    path, draw = tmp_path / "a.mp4", np.random.default_rng(0)
    write_clip(path, draw.integers(0, 256, (12, 96, 96, 3), dtype=np.uint8), 25, codec=codec, options={"g": "1"})
    whole = read_clip(path, 12)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for place, size in (places[7], places[9]):
        content[place + size // 2 : place + size // 2 + 300] = draw.bytes(300)
    path.write_bytes(content)
    shown = [*range(7), 6, 8, 8, 10, 11]
    assert torch.equal(read_clip(path, 12), whole[shown])


def write_sound(path: Path, with_cover: bool) -> None:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        if with_cover:
            cover = container.add_stream("mjpeg")
            cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
            image = av.VideoFrame.from_ndarray(numbered_frames(1)[0], format="rgb24").reformat(format="yuvj420p")
            container.mux(cover.encode(image))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


@pytest.mark.parametrize("with_cover", [False, True])
def test_sound_alone_is_unreadable_and_so_is_sound_with_a_cover(tmp_path, with_cover):
    write_sound(tmp_path / "a.mp4", with_cover)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert len(container.streams.video) == with_cover
    with pytest.raises(UnreadableVideo, match="has no video"):
        read_clip(tmp_path / "a.mp4", 4)


def make_locked(path: Path) -> None:
    path.write_bytes(b"video")
    path.chmod(0)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.mp4": (lambda path: path.touch(), "empty: it has no bytes"),
    "text.mp4": (lambda path: path.write_text("Not a video.\n" * 100), "no video, or cut off"),
    "noise.avi": (lambda path: path.write_bytes(random.Random(0).randbytes(50_000)), "no video, or cut off"),
    "missing.mp4": (lambda path: None, "missing"),
    "dangling.mp4": (lambda path: path.symlink_to("nowhere"), "a link to a missing file"),
    "folder.mp4": (Path.mkdir, "a folder, not a file"),
    "pipe.mp4": (os.mkfifo, "not a regular file"),
    "locked.mp4": (make_locked, "permission denied"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_video_is_unreadable_with_its_reason(tmp_path, name, capfd):
    make, reason = BAD[name]
    make(tmp_path / name)
    if name == "locked.mp4" and os.access(tmp_path / name, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UnreadableVideo) as caught:
        read_clip(tmp_path / name, 4)
    assert caught.value.reason.startswith(reason)
    assert caught.value.path == str(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_a_playlist_under_a_videos_name_opens_no_other_file(tmp_path):
    write_clip(tmp_path / "a.mp4", numbered_frames(3), 25)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.mp4\n#EXT-X-ENDLIST\n"
    for name, text in (("b.mp4", playlist), ("c.mp4", "ffconcat version 1.0\nfile a.mp4\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UnreadableVideo):
            read_clip(tmp_path / name, 1)


def test_a_name_like_a_protocol_is_a_name(tmp_path, monkeypatch):
    write_clip(tmp_path / "a.mp4", numbered_frames(3), 25)
    (tmp_path / "a.mp4").rename(tmp_path / "http:é b.mp4")
    monkeypatch.chdir(tmp_path)
    assert numbers(read_clip("http:é b.mp4", 3)) == [0, 1, 2]


def test_files_are_closed_and_ffmpeg_is_silent_even_where_someone_let_it_speak(tmp_path, capfd):
    write_clip(tmp_path / "a.mp4", numbered_frames(50), 25, container_options={"movflags": "faststart"})
    paths = [tmp_path / "a.mp4", cut(tmp_path / "a.mp4", 0.5), cut(tmp_path / "a.mp4", 0.05), tmp_path / "text.mp4"]
    (tmp_path / "text.mp4").write_text("no video")
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else None
    av.logging.restore_default_callback()
    for path in paths * 3:
        try:
            read_clip(path, 5)
        except UnreadableVideo:
            assert path not in paths[:2]
    if before is not None:
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert capfd.readouterr() == ("", "")


def test_a_part_behind_the_end_is_unreadable_and_an_impossible_one_a_mistake(tmp_path):
    write_clip(tmp_path / "a.mp4", numbered_frames(25), 25)
    with pytest.raises(UnreadableVideo, match=r"ends at 1\.00 s, before the part from 2\.0 s on"):
        read_clip(tmp_path / "a.mp4", 2, None, 2.0)
    for arguments in ((0,), (2, 0), (2, None, -1.0), (2, None, 0.5, 0.5)):
        with pytest.raises(ValueError, match="must"):
            read_clip(tmp_path / "a.mp4", *arguments)


def test_videos_are_found_by_suffix_sorted_and_without_hidden_ones(tmp_path):
    for name in ("b/x.MP4", "a/y.webm", "a/z.avi", "a/.hidden.mp4", "a/captions.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in find_videos(tmp_path)] == [
        "a/y.webm",
        "a/z.avi",
        "b/x.MP4",
    ]


@pytest.mark.parametrize("make", [lambda path: None, Path.touch, Path.mkdir])
def test_a_folder_without_videos_is_the_users_to_mend(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(UserError, match=r"folder not found|not a folder|no videos below"):
        find_videos(tmp_path / "x")


@pytest.mark.parametrize(("height", "width"), [(40, 2000), (2000, 40)])
def test_frames_that_are_far_longer_than_wide_are_refused(tmp_path, height, width):
    write_clip(tmp_path / "a.avi", np.zeros((3, height, width, 3), dtype=np.uint8), 3, codec="ffv1")
    with pytest.raises(UnreadableVideo, match=f"{width} x {height} pixels; one side is over 32 times the other"):
        read_clip(tmp_path / "a.avi", 2, 32)


def test_frames_that_are_too_large_are_refused_before_they_are_decoded(tmp_path, decoded):
    write_clip(tmp_path / "a.avi", np.zeros((3, 40, 60, 3), dtype=np.uint8), 3, codec="mpeg4")
    with pytest.raises(UnreadableVideo, match=r"60 x 40 pixels; at most 0\.002 million are read"):
        read_clip(tmp_path / "a.avi", 2, 32, max_pixels=2000)
    assert decoded == []
