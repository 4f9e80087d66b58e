"""A clip with its caption: sampled frames, and under them the attention of each word over the same time."""

import logging
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mynah.downstream.interfaces import UpstreamInfo
from mynah.utility.albert.encoding import SubwordTokenizer
from mynah.utility.errors import UserError
from mynah.utility.evaluation.figures import save_png
from mynah.utility.video.files import UnreadableVideo, read_clip
from mynah.utility.video.frames import sample_frames, square_frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_FRAMES = 8
DPI = 130
# In inches.
FRAME, ROW, LINE, MARGIN, CHARACTER = 1.15, 0.24, 0.2, 0.15, 0.085
NOT_IN_FILE_NAMES = r"[^\w.-]+"
LONGEST_NAME = 100
"""Bytes of a clip's name in that of its picture."""

WordsOverTime = tuple[list[str], list[list[float]]]
"""A caption's words, and for each its attention to each step of time, in sum 1."""

log = logging.getLogger("mynah")


@dataclass(frozen=True)
class CaptionPicture:
    """What is drawn of a clip."""

    clip: Tensor
    """(T, 3, H, W) uint8, as the upstream is given it."""
    caption: str
    confidence: float
    words: list[str]
    shares: list[list[float]]
    """A row a word: its attention to each step of time, in sum 1."""
    reference: str = ""
    """A caption that a person gave, to stand below the model's."""


def words_over_time(
    tokenizer: SubwordTokenizer, ids: Sequence[int], attention: Tensor, num_steps: int
) -> WordsOverTime:
    """The W word pieces `ids` of a caption and their attention (W, N) to positions, time the slowest axis -> words,
    and for each the attention to each of the steps: the mean over its pieces, summed over a step's places.

    In a text without spaces every word piece is a word.
    """
    if attention.shape[1] % num_steps == 0:
        attention = attention.unflatten(1, (num_steps, -1)).sum(2)
    words = tokenizer.decode(ids).split()
    if len(words) <= 1:
        return [tokenizer.decode([piece]) for piece in ids], attention.tolist()
    pieces: dict[int, list[Tensor]] = {}
    before = ""
    for end, row in enumerate(attention, start=1):
        text = tokenizer.decode(ids[:end])
        begun = len(text.split()) + (text == before)  # a mere space belongs to the word that comes
        pieces.setdefault(min(max(begun, 1), len(words)) - 1, []).append(row)
        before = text
    return [words[word] for word in pieces], [torch.stack(rows).mean(0).tolist() for rows in pieces.values()]


def draw_records(
    records: dict[str, list], paths: dict[str, str], upstream: UpstreamInfo, count: int, folder: Path
) -> list[Path]:
    """Draw the first `count` clips of `records` whose attention is known into `folder`; returns the files.

    paths: of the clips, by name.
    """
    drawn = []
    known = [index for index, attention in enumerate(records.get("attention", ())) if attention is not None]
    for number, index in enumerate(known[:count], start=1):
        name = records["name"][index]
        try:
            clip = read_clip(paths[name], upstream.frames_per_clip, upstream.frame_size)
        except UnreadableVideo as error:
            log.warning("no picture of %s", error)
            continue
        caption, confidence = records["prediction"][index], records["confidence"][index]
        words, shares = records["attention"][index]
        picture = CaptionPicture(clip, caption, confidence, words, shares, records["references"][index][0])
        path = folder / f"clip_{number}_{_file_name(name)}.png"
        draw_caption(picture, upstream, path)
        drawn.append(path)
    return drawn


def _file_name(name: str) -> str:
    """A clip's name as a part of a file's, which may have 255 bytes."""
    return re.sub(NOT_IN_FILE_NAMES, "_", name).encode()[:LONGEST_NAME].decode(errors="ignore")


def draw_caption(picture: CaptionPicture, upstream: UpstreamInfo, path: Path) -> None:
    """Write the picture as a PNG: what the upstream sees of the frames, over a map of words (down) by time (across).

    The folder is made if need be. No pyplot state is used: safe in any process or thread.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    clip = square_frames(sample_frames(picture.clip, upstream.frames_per_clip), upstream.frame_size)
    shown = min(MAX_FRAMES, len(clip))
    across = max(4, shown) * FRAME
    left = max([6, *(len(word) for word in picture.words)]) * CHARACTER + MARGIN
    title = _title(picture, across)
    heat = len(picture.words) * ROW
    below = heat + 3 * LINE if heat else 0.0
    width, height = left + across + 1.0, below + across / shown + len(title.splitlines()) * LINE + 3 * MARGIN
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)

    def place(x: float, y: float, across: float, up: float) -> "Axes":  # in inches, so that times lie below frames
        return figure.add_axes((x / width, y / height, across / width, up / height))

    figure.text(left / width, 1 - MARGIN / height, title, va="top", fontsize=11)
    _draw_frames(place(left, below + MARGIN, across, across / shown), clip, shown)
    if heat:
        floor = 2 * LINE + MARGIN
        bar = place(left + across + 0.1, floor, 0.12, heat)
        _draw_attention(place(left, floor, across, heat), bar, picture, len(clip))
    try:
        save_png(figure, path)
    except OSError as error:
        raise UserError(f"the picture {path} cannot be written: {error.strerror}") from error


def _draw_frames(axes: "Axes", clip: Tensor, shown: int) -> None:
    strip = torch.cat(list(sample_frames(clip, shown)), 2).permute(1, 2, 0).cpu().numpy()
    axes.imshow(strip, aspect="auto", extent=(0, len(clip), 0, 1))
    axes.vlines([len(clip) * index / shown for index in range(1, shown)], 0, 1, "white", linewidth=2)
    axes.set_axis_off()


def _draw_attention(axes: "Axes", bar_axes: "Axes", picture: CaptionPicture, num_frames: int) -> None:
    num_words = len(picture.words)
    extent = (0, num_frames, num_words, 0)
    colors = axes.imshow(
        picture.shares, aspect="auto", extent=extent, interpolation="nearest", cmap="magma", vmin=0.0
    )
    axes.set_yticks([row + 0.5 for row in range(num_words)], picture.words, fontsize=9)
    axes.set_xlabel("frame", fontsize=9)
    axes.tick_params(labelsize=8, axis="x")
    axes.figure.colorbar(colors, cax=bar_axes)
    bar_axes.tick_params(labelsize=7)
    bar_axes.set_ylabel("attention", fontsize=8)


def _title(picture: CaptionPicture, width: float) -> str:
    columns = int(width / (1.15 * CHARACTER))
    lines = [f"{picture.caption or '(no words)'}  ({100 * picture.confidence:.0f} %)"]
    if picture.reference:
        lines.append(f"reference: {picture.reference}")
    return "\n".join(wrapped for line in lines for wrapped in textwrap.wrap(line, columns))
