"""utility/video/frame_cache.py: the same frames as without it, decoded once, whatever happens to the folder."""

import errno
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mynah.utility.video import frame_cache
from mynah.utility.video.files import UnreadableVideo, read_clip
from mynah.utility.video.frame_cache import FrameCache
from mynah.utility.video.writing import write_clip


@pytest.fixture
def video(tmp_path) -> Path:
    write(tmp_path / "a.mp4", seed=0)
    return tmp_path / "a.mp4"


def write(path: Path, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)
    write_clip(path, frames, 12)


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """The videos that were decoded."""
    decoded = []

    def read(path, *arguments):
        decoded.append(Path(path))
        return read_clip(path, *arguments)

    monkeypatch.setattr(frame_cache, "read_clip", read)
    return decoded


def test_frames_are_the_same_and_decoded_once(tmp_path, video, reads):
    expected = read_clip(video, 4, 16)
    for _ in range(3):
        clip = FrameCache(tmp_path / "cache").read(video, 4, 16)
        assert torch.equal(clip, expected)
        assert clip.dtype == torch.uint8
        clip.zero_()  # what is kept is not what was handed out
    assert reads == [video]


def test_another_request_or_place_has_an_entry_of_its_own(tmp_path, video, reads):
    cache = FrameCache(tmp_path / "cache")
    other = tmp_path / "b.mp4"
    write(other, seed=1)
    os.utime(other, ns=(video.stat().st_atime_ns, video.stat().st_mtime_ns))
    for request in ((video, 4, 16), (video, 5, 16), (video, 4, 20), (other, 4, 16)):
        assert torch.equal(cache.read(*request), read_clip(*request))
    assert len(reads) == 4


def test_the_same_file_elsewhere_has_an_entry_of_its_own(tmp_path, video):
    (tmp_path / "b").mkdir()
    os.link(video, tmp_path / "b" / video.name)
    cache = FrameCache(tmp_path / "cache")
    assert cache.entry(tmp_path / "b" / video.name, 4, 16) != cache.entry(video, 4, 16)


def test_a_path_is_the_same_however_it_is_spelled(tmp_path, video, reads, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = FrameCache(tmp_path / "cache")
    assert torch.equal(cache.read("a.mp4", 4, 16), cache.read(str(video), 4, 16))
    assert len(reads) == 1


def test_a_changed_file_is_decoded_again(tmp_path, video, reads):
    cache = FrameCache(tmp_path / "cache")
    first = cache.read(video, 4, 16)
    write(video, seed=1)
    second = cache.read(video, 4, 16)
    assert not torch.equal(first, second)
    assert torch.equal(second, read_clip(video, 4, 16))
    os.utime(video, ns=(1, 1))
    cache.read(video, 4, 16)
    assert len(reads) == 3


def cut_off(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:-20])


def of_another_shape(entry: Path) -> None:
    np.save(entry, np.zeros((4, 3, 7, 9), np.uint8))


def of_another_type(entry: Path) -> None:
    np.save(entry, np.zeros((4, 3, 16, 24), np.float32))


def garbage(entry: Path) -> None:
    entry.write_bytes(b"no array")


@pytest.mark.parametrize(
    "damage", [cut_off, of_another_shape, of_another_type, garbage, lambda e: e.write_bytes(b"")]
)
def test_a_damaged_entry_is_decoded_again(tmp_path, video, reads, caplog, damage):
    cache = FrameCache(tmp_path / "cache")
    expected = cache.read(video, 4, 16)
    damage(cache.entry(video, 4, 16))
    with caplog.at_level(logging.WARNING, "mynah"):
        assert torch.equal(cache.read(video, 4, 16), expected)
    assert "decoding again" in caplog.text
    assert torch.equal(cache.read(video, 4, 16), expected)
    assert len(reads) == 2


def test_a_full_disk_is_one_warning_and_nothing_half_is_left(tmp_path, video, caplog, monkeypatch):
    def full(path, array):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    cache = FrameCache(tmp_path / "cache")
    with caplog.at_level(logging.WARNING, "mynah"):
        for num_frames in (4, 4, 5):
            assert torch.equal(cache.read(video, num_frames, 16), read_clip(video, num_frames, 16))
    assert [record.message for record in caplog.records if "not kept" in record.message] == [caplog.messages[0]]
    assert "No space left" in caplog.messages[0]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path, video, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "mynah"):
        clip = FrameCache(tmp_path / "file" / "cache").read(video, 4, 16)
    assert torch.equal(clip, read_clip(video, 4, 16))
    assert "not kept" in caplog.text


def test_an_unreadable_video_is_unreadable_with_a_cache_too(tmp_path):
    cache = FrameCache(tmp_path / "cache")
    (tmp_path / "empty.mp4").touch()
    for name, reason in (("missing.mp4", "missing"), ("empty.mp4", "empty: it has no bytes")):
        with pytest.raises(UnreadableVideo) as caught:
            cache.read(tmp_path / name, 4, 16)
        assert caught.value.reason == reason
    assert not (tmp_path / "cache").exists()
