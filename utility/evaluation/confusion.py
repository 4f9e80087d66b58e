"""Confusion matrices as pictures, for two classes as for a thousand."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mynah.utility.evaluation.figures import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

MAX_COUNTS_SHOWN = 20  # up to here every cell shows its count
MAX_NAMES_SHOWN = 60  # up to here every row and column has its name; beyond it, evenly chosen ones
DPI = 150
SHARES = {"cmap": "magma", "vmin": 0.0, "vmax": 1.0}


def confusion_counts(labels: Sequence[int], predicted: Sequence[int], num_classes: int) -> np.ndarray:
    """Class indices, true and predicted -> (C, C) int64: row = true class, column = predicted class."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)), 1)
    return counts


def draw_confusion(counts: np.ndarray, classes: Sequence[str], path: Path, title: str) -> Path:
    """Write `counts` (C, C), row = true class, as a PNG: each cell's color is its share of its row.

    A class that never occurs leaves a blank row. No pyplot state is used: safe in any process or thread.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_classes = len(classes)
    side = float(np.clip(4 + 0.3 * num_classes, 5, 14))  # inches
    figure = Figure(figsize=(side * 1.15, side), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    draw_cells = _draw_cells if num_classes <= MAX_NAMES_SHOWN else _draw_dots
    colors = draw_cells(axes, shares)
    figure.colorbar(colors, ax=axes, label="share of the true class", shrink=0.7)
    _name_classes(axes, classes)
    if num_classes <= MAX_COUNTS_SHOWN:
        _write_counts(axes, counts, shares)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return save_png(figure, path)


def _draw_cells(axes: "Axes", shares: np.ndarray) -> "ScalarMappable":
    absent = np.broadcast_to(shares.sum(axis=1, keepdims=True) == 0, shares.shape)
    return axes.imshow(np.ma.masked_where(absent, shares), interpolation="nearest", **SHARES)


def _draw_dots(axes: "Axes", shares: np.ndarray) -> "ScalarMappable":
    """Cells this small would vanish: a dot for each that is not empty, the larger shares on top."""
    rows, columns = np.nonzero(shares)
    order = np.argsort(shares[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    last = len(shares) - 0.5
    axes.set(facecolor="0.75", aspect="equal", xlim=(-0.5, last), ylim=(last, -0.5))
    return axes.scatter(columns, rows, c=shares[rows, columns], s=9, linewidths=0, **SHARES)


def _name_classes(axes: "Axes", classes: Sequence[str]) -> None:
    shown = min(len(classes), MAX_NAMES_SHOWN)
    ticks = np.unique(np.linspace(0, len(classes) - 1, shown).round().astype(int))
    names = [classes[tick] for tick in ticks]
    size = 9 if shown <= MAX_COUNTS_SHOWN else 7
    axes.set_xticks(ticks, names, rotation=90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray) -> None:
    for row, column in np.argwhere(counts > 0):
        color = "black" if shares[row, column] > 0.6 else "white"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
