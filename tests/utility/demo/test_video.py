"""utility/demo/video.py: the corpus as it lies on the disk, its pictures measured."""

import json
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from mynah.utility.captions.corpus import CaptionCorpusConfig, read_captioned_clips
from mynah.utility.demo import video as demo_video
from mynah.utility.demo.video import (
    COLORS,
    FILES,
    MOTIONS,
    SHAPES,
    Combination,
    demo_combination,
    demo_splits,
    demo_vatex,
)
from mynah.utility.errors import UserError
from mynah.utility.video.files import find_videos, read_clip


def combinations(split: str) -> list[Combination]:
    return [combination for _, combination in demo_splits()[split]]


def annotations(split: str) -> dict[str, list[str]]:
    entries = json.loads((demo_vatex() / FILES[split]).read_text(encoding="utf-8"))
    return {entry["videoID"]: entry["enCap"] for entry in entries}


def test_its_layout_is_that_of_vatex(demo_cache):
    splits = {split: annotations(split) for split in FILES}
    assert {split: len(clips) for split, clips in splits.items()} == {"train": 600, "dev": 60, "test": 60}
    names = [name for clips in splits.values() for name in clips]
    assert sorted(names) == [path.stem for path in find_videos(demo_vatex() / "videos")]
    assert all(len(captions) == 5 == len(set(captions)) for clips in splits.values() for captions in clips.values())
    size = sum(path.stat().st_size for path in demo_vatex().rglob("*") if path.is_file())
    assert size < 30e6


def test_it_is_what_is_read_without_a_corpus(demo_cache):
    for split in FILES:
        coverage = read_captioned_clips(CaptionCorpusConfig(), split, None)
        assert (coverage.share, coverage.missing) == (1.0, [])
        assert {clip.name: list(clip.captions) for clip in coverage.clips} == annotations(split)


def test_captions_are_short_and_name_color_shape_and_motion(demo_cache):
    vocabulary = set()
    for split in FILES:
        for name, captions in annotations(split).items():
            shown = demo_combination(name)
            for caption in captions:
                words = caption.split()
                assert 5 <= len(words) <= 9
                assert {word for word in words if word in COLORS} == {shown.color}
                assert {word for word in words if word in SHAPES} == {shown.shape}
                named = {motion for motion, phrases in MOTIONS.items() if any(caption.endswith(p) for p in phrases)}
                assert named == {shown.motion}
                vocabulary.update(words)
    assert len(vocabulary) < 60


def test_unseen_combinations_are_of_values_and_pairs_that_training_has():
    train, dev, test = (set(combinations(split)) for split in ("train", "dev", "test"))
    assert not train & dev
    assert not train & test
    assert not dev & test
    assert len(train | dev | test) == len(COLORS) * len(SHAPES) * len(MOTIONS)
    for first, second in (("color", "shape"), ("color", "motion"), ("shape", "motion")):
        values = {"color": COLORS, "shape": SHAPES, "motion": MOTIONS}
        pairs = {(getattr(each, first), getattr(each, second)) for each in train}
        assert pairs == set(product(values[first], values[second]))
    for split in FILES:
        for field, number in (("color", len(COLORS)), ("shape", len(SHAPES)), ("motion", len(MOTIONS))):
            counts = Counter(getattr(each, field) for each in combinations(split))
            assert len(counts) == number
            assert len(set(counts.values())) == 1


def test_ids_tell_nothing_and_unknown_ones_are_refused():
    with pytest.raises(KeyError):
        demo_combination("G0mjFqytJt4_000152_000162")
    shown = combinations("train")
    neighbors = sum(one.motion == other.motion for one, other in pairwise(shown))
    assert neighbors < 0.3 * len(shown)


def foreground(frames: np.ndarray) -> np.ndarray:
    """(T, H, W) bool: where the frames (T, 3, H, W) differ from the background, taken from their corners' median."""
    background = np.median(np.concatenate([frames[..., :3, :3], frames[..., -3:, -3:]]), axis=(0, 2, 3))
    return np.abs(frames - background[None, :, None, None]).max(axis=1) > 60


# Of each shape: the least and the most that it fills of its bounding box, and the box's height by its width.
LOOKS = {
    "circle": (0.7, 0.85, 1.0),
    "bar": (0.9, 1.0, 0.33),
    "triangle": (0.42, 0.62, 0.87),
    "ring": (0.5, 0.72, 1.0),
}


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_pictures_show_what_the_clip_is_said_to_show(demo_cache, split):
    for name, shown in demo_splits()[split][::3]:
        frames = read_clip(demo_vatex() / "videos" / f"{name}.mp4", 18).numpy().astype(int)
        assert frames.shape == (18, 3, 64, 64)
        mask = foreground(frames)
        rows, columns = np.indices((64, 64)) + 0.5
        x = [columns[each].mean() for each in mask]
        y = [rows[each].mean() for each in mask]
        area = mask.sum(axis=(1, 2))
        grown = 30 * np.log(area[-1] / area[0]) / np.log(4)  # 30 where it is four times as large
        way = {"right": x[-1] - x[0], "left": x[0] - x[-1], "down": y[-1] - y[0], "up": y[0] - y[-1]}
        way |= {"grow": grown, "shrink": -grown}
        assert max(way, key=way.get) == shown.motion
        assert way[shown.motion] > 18
        whole = mask[9]  # in the middle of its way, a shape is not cut off by the edge
        color = np.median(frames[9][:, whole], axis=1)
        distances = {each: np.abs(color - np.array(value)).max() for each, value in COLORS.items()}
        assert min(distances, key=distances.get) == shown.color
        box = whole[whole.any(axis=1)][:, whole.any(axis=0)]
        low, high, shape = LOOKS[shown.shape]
        assert low < box.mean() <= high
        assert abs(len(box) / box.shape[1] - shape) < 0.15
        assert max(box.shape) > 64 / 4
        middle = box[len(box) // 2 - 2 : len(box) // 2 + 2, box.shape[1] // 2 - 2 : box.shape[1] // 2 + 2]
        assert middle.all() == (shown.shape != "ring")


def test_it_is_the_same_every_time(demo_cache, tmp_path, monkeypatch):
    few = {split: clips[:4] for split, clips in demo_splits().items()}
    monkeypatch.setattr(demo_video, "demo_splits", lambda: few)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        demo_video._write_corpus(tmp_path / folder)
    files = [path.relative_to(tmp_path / "one") for path in sorted((tmp_path / "one").rglob("*")) if path.is_file()]
    assert len(files) == 12 + 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    # The first ones are also what any other run makes.
    name = few["train"][0][0]
    path = Path("videos") / f"{name}.mp4"
    assert (tmp_path / "one" / path).read_bytes() == (demo_vatex() / path).read_bytes()


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MYNAH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="MYNAH_CACHE"):
        demo_vatex()
