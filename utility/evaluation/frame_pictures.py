"""Pictures of labels in time: a spectrogram, and below it a strip of what is true and one of what was predicted."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.evaluation.figures import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 120
MOST_SECONDS = 20.0
NAMED_SECONDS = 0.035
"""From this width on a segment shows its label."""


@dataclass(frozen=True)
class FramePanel:
    """One utterance.

    signal: (T,) at 16 kHz. strips: {a strip's name: [(start, end, class), ...]} in seconds, the first at the top.
    """

    title: str
    signal: np.ndarray
    strips: Mapping[str, Sequence[tuple[float, float, int]]]


def draw_frames(panels: Sequence[FramePanel], labels: Sequence[str], path: Path) -> Path:
    """Write the panels below one another as a PNG; of each at most the first 20 seconds.

    labels: the names of the classes; a class has the same color everywhere. No pyplot state is used.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seconds = min(MOST_SECONDS, max(len(panel.signal) for panel in panels) / SAMPLE_RATE)
    figure = Figure(figsize=(max(8.0, 3.5 * seconds), 3.2 * len(panels)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2 * len(panels), 1, squeeze=False, height_ratios=[3, 1] * len(panels))[:, 0]
    for panel, sound, strips in zip(panels, rows[::2], rows[1::2], strict=True):
        _draw_spectrogram(sound, panel.signal[: int(MOST_SECONDS * SAMPLE_RATE)])
        _draw_strips(strips, panel.strips, labels)
        sound.set_title(panel.title, fontsize=9, loc="left")
        for axes in (sound, strips):
            axes.set_xlim(0, seconds)
    return save_png(figure, path)


def _draw_spectrogram(axes: "Axes", signal: np.ndarray) -> None:
    padded = np.pad(signal, (0, max(0, 400 - len(signal))))
    with warnings.catch_warnings():  # the logarithm of digital silence
        warnings.simplefilter("ignore", RuntimeWarning)
        axes.specgram(padded + 1e-6, NFFT=400, noverlap=240, Fs=SAMPLE_RATE, cmap="magma")
    axes.set(yticks=[0, 4000, 8000], yticklabels=["0", "4", "8 kHz"])
    axes.tick_params(labelbottom=False, labelsize=7)


def _draw_strips(
    axes: "Axes", strips: Mapping[str, Sequence[tuple[float, float, int]]], labels: Sequence[str]
) -> None:
    from matplotlib import colormaps

    colors = colormaps["hsv"]
    for row, segments in enumerate(strips.values()):
        shown = [(start, end, label) for start, end, label in segments if start < MOST_SECONDS]
        shades = [(*colors(label / max(len(labels), 1))[:3], 0.45) for _, _, label in shown]
        bars = [(start, end - start) for start, end, _ in shown]
        axes.broken_barh(bars, (row - 0.45, 0.9), facecolors=shades, edgecolor="white", linewidth=0.5)
        for start, end, label in shown:
            if end - start >= NAMED_SECONDS:
                axes.text((start + end) / 2, row, labels[label], ha="center", va="center", fontsize=6, clip_on=True)
    axes.set(yticks=range(len(strips)), yticklabels=list(strips), ylim=(len(strips) - 0.5, -0.5))
    axes.tick_params(labelsize=7)
