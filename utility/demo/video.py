"""A demo corpus: short clips of one moving, colored shape, laid out on disk as VATEX is, with five captions a clip.

It is made once, in seconds, into the user's cache folder. Colors, shapes and motions are combined so that each
occurs equally often in each split and each pair of them occurs in training, but the combinations of all three in
validation occur there only, and so do those of the test. Shapes are those that a small model soon tells apart: one
that had learned colors and motions still took squares for circles, and crosses for triangles.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np

from mynah.utility.demo.cached_corpus import cached_corpus
from mynah.utility.video.writing import write_clip

VERSION = "video-2"  # one up whenever the corpus changes
SIZE, FPS, NUM_FRAMES = 64, 12, 18
BACKGROUND = (10, 110)  # brightness, of 255
MARGIN = 12  # pixels from the edge at which the center of a moving shape turns up at the earliest
NOISE = 4.0  # standard deviation, of 255
CAPTIONS_PER_CLIP = 5
# With B-frames or macroblock trees, x264 gives other bytes from run to run for frames as small as these.
ENCODING = {"crf": "18", "preset": "veryfast", "bf": "0", "x264-params": "mbtree=0"}

COLORS = {
    "red": (230, 30, 30),
    "green": (30, 200, 40),
    "blue": (40, 60, 240),
    "yellow": (245, 225, 30),
    "purple": (190, 40, 220),
    "white": (250, 250, 250),
}
MOTIONS = {
    "right": ("moves to the right", "is going right", "travels right"),
    "left": ("moves to the left", "is going left", "travels left"),
    "up": ("moves up", "is going up", "rises to the top"),
    "down": ("moves down", "is going down", "sinks to the bottom"),
    "grow": ("grows in size", "is getting bigger", "becomes larger"),
    "shrink": ("shrinks in size", "is getting smaller", "becomes smaller"),
}
ARTICLES = ("a", "the", "one")

CLIPS_PER_COMBINATION = 5
FILES = {
    "train": "vatex_training_v1.0.json",
    "dev": "vatex_validation_v1.0.json",
    "test": "vatex_public_test_english_v1.1.json",
}


@dataclass(frozen=True)
class Combination:
    """What a clip shows: keys of COLORS, SHAPES and MOTIONS."""

    color: str
    shape: str
    motion: str


def demo_vatex() -> Path:
    """The corpus's folder: videos/*.mp4 (64 x 64, 1.5 s) and VATEX's three JSON files; 600 + 60 + 60 clips."""
    return cached_corpus("VATEX", VERSION, "clips of moving shapes", _write_corpus)


def demo_combination(name: str) -> Combination:
    """What the demo clip of that id shows. Raises KeyError for another."""
    return {clip_name: combination for clips in demo_splits().values() for clip_name, combination in clips}[name]


@lru_cache(maxsize=1)
def demo_splits() -> dict[str, list[tuple[str, Combination]]]:
    """{split: (id, what it shows) of its clips}, the ids in an order that tells nothing."""
    combinations: dict[str, list[Combination]] = {"train": [], "dev": [], "test": []}
    for color, shape, motion in product(range(len(COLORS)), range(len(SHAPES)), range(len(MOTIONS))):
        unseen = (color + shape + motion) % len(MOTIONS) == 0  # one motion of each color and shape, and so on
        split = ("dev" if (color + shape // 2) % 2 == 0 else "test") if unseen else "train"
        combinations[split].append(Combination(list(COLORS)[color], list(SHAPES)[shape], list(MOTIONS)[motion]))
    draw = np.random.default_rng(1)
    splits, number = {}, 0
    for split, of_split in combinations.items():
        shown = [each for each in of_split for _ in range(CLIPS_PER_COMBINATION)]
        splits[split] = []
        for index in draw.permutation(len(shown)):
            splits[split].append((f"demoshape{number:03d}_000000_000002", shown[index]))
            number += 1
    return splits


def _write_corpus(folder: Path) -> None:
    (folder / "videos").mkdir()
    draw = np.random.default_rng(2)
    for split, clips in demo_splits().items():
        annotation = []
        for name, combination in clips:
            write_clip(folder / "videos" / f"{name}.mp4", _render(combination, draw), FPS, options=ENCODING)
            annotation.append({"videoID": name, "enCap": _captions(combination, draw)})
        text = json.dumps(annotation, indent=1)
        (folder / FILES[split]).write_text(text, encoding="utf-8")


def _captions(combination: Combination, draw: np.random.Generator) -> list[str]:
    """Different ones, all of which name color, shape and motion."""
    phrases = list(product(ARTICLES, MOTIONS[combination.motion]))
    chosen = draw.choice(len(phrases), CAPTIONS_PER_CLIP, replace=False)
    return [
        f"{article} {combination.color} {combination.shape} {motion}"
        for article, motion in (phrases[index] for index in chosen)
    ]


def _render(combination: Combination, draw: np.random.Generator) -> np.ndarray:
    """(NUM_FRAMES, SIZE, SIZE, 3) uint8: the shape over a gray background, all with some noise."""
    cover, color = SHAPES[combination.shape], np.array(COLORS[combination.color]) * draw.uniform(0.85, 1.0)
    brightness = draw.uniform(*BACKGROUND)
    pixels = np.arange(SIZE) + 0.5
    frames = []
    for x, y, radius in _path(combination.motion, draw):
        alpha = np.clip(cover(pixels[None] - x, pixels[:, None] - y, radius) + 0.5, 0, 1)[..., None]
        noise = NOISE * draw.standard_normal((SIZE, SIZE, 1))
        frames.append(alpha * color + (1 - alpha) * brightness + noise)
    return np.stack(frames).round().clip(0, 255).astype(np.uint8)


def _path(motion: str, draw: np.random.Generator) -> np.ndarray:
    """(NUM_FRAMES, 3): the shape's center (x to the right, y down) and radius in pixels."""
    step = np.linspace(0, 1, NUM_FRAMES)
    if motion in ("grow", "shrink"):
        radii = draw.uniform(6, 9) + draw.uniform(13, 17) * (step if motion == "grow" else step[::-1])
        x, y = draw.uniform(28, SIZE - 28, size=2)
        return np.stack([np.full(NUM_FRAMES, x), np.full(NUM_FRAMES, y), radii], axis=1)
    radius = draw.uniform(15, 19)
    room = SIZE - 2 * MARGIN
    length = room * draw.uniform(0.7, 1.0)
    start = MARGIN + draw.uniform(0, room - length)
    along = start + length * (step if motion in ("right", "down") else step[::-1])
    across = np.full(NUM_FRAMES, draw.uniform(radius, SIZE - radius))
    x, y = (along, across) if motion in ("left", "right") else (across, along)
    return np.stack([x, y, np.full(NUM_FRAMES, radius)], axis=1)


def _circle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return radius - np.hypot(x, y)


def _bar(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Lying, about three times as wide as high."""
    return np.minimum(1.1 * radius - np.abs(x), 0.36 * radius - np.abs(y))


def _triangle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Standing on a side, its corners 1.15 radii from the center."""
    return 0.575 * radius - np.maximum(y - 0.2 * radius, 0.866 * np.abs(x) - 0.5 * (y - 0.2 * radius))


def _ring(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return 0.25 * radius - np.abs(np.hypot(x, y) - 0.75 * radius)


Cover = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""x, y: offsets from the center in pixels -> the distance to the edge, positive inside."""

SHAPES: dict[str, Cover] = {
    "circle": _circle,
    "bar": _bar,
    "triangle": _triangle,
    "ring": _ring,
}
