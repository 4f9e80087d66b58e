"""A table as a picture: grouped bars, a panel for each task, with the deviation over seeds."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.tables.metrics import RATES, scaled
from mynah.tables.plan import FINISHED
from mynah.tables.writing import Grid
from mynah.utility.evaluation.figures import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mynah.tables.config import TaskColumn

PICTURE = "results.png"
DPI = 130
MAX_LABEL = 32
PANELS_IN_A_ROW = 3
PANEL_WIDTH, BAR_HEIGHT, PANEL_MARGIN = 4.2, 0.32, 1.1
"""Inches."""


def draw_chart(grid: Grid, folder: Path) -> Path:
    """Write the picture. Every upstream has one color, and its place in every panel; no pyplot state is used."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = 2 if len(grid.columns) == 4 else min(PANELS_IN_A_ROW, len(grid.columns))
    down = -(-len(grid.columns) // across)
    height = PANEL_MARGIN + BAR_HEIGHT * max(len(grid.rows), 2)
    width = PANEL_WIDTH * across + 0.08 * min(MAX_LABEL, max(len(row.label) for row in grid.rows))
    figure = Figure(figsize=(width, height * down), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    colors = colormaps["tab20" if len(grid.rows) > 10 else "tab10"].colors
    for panel, column in zip(panels[: len(grid.columns)], grid.columns, strict=True):
        _draw_task(panel, grid, column, colors)
    for panel in panels[len(grid.columns) :]:
        panel.set_visible(False)
    panels[0].set_yticks(range(len(grid.rows)), [_shortened(row.label) for row in grid.rows])
    panels[0].set_ylim(len(grid.rows) - 0.4, -0.6)  # the first row on top
    return save_png(figure, folder / PICTURE)


def _draw_task(panel: "Axes", grid: Grid, column: "TaskColumn", colors: tuple) -> None:
    metric = grid.metrics[column.label]
    shortest = longest = 0.0
    for place, row in enumerate(grid.rows):
        state = grid.state(row, column)
        mean = math.nan if state is None or state.mean is None else scaled(metric.key, state.mean)
        if state is None or state.status != FINISHED or not math.isfinite(mean):
            said = "none" if state is None else state.status if state.status != FINISHED else f"{mean}"
            panel.text(0, place, f" {said}", va="center", color="0.4", fontsize=8)
            continue
        spread = scaled(metric.key, state.deviation or 0.0)
        panel.barh(place, mean, height=0.7, color=colors[place % len(colors)], xerr=spread or None, capsize=3)
        text = f"{mean:.{1 if metric.key in RATES else 3}f}"
        place_of_text = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        panel.annotate(text, (max(mean + spread, 0), place), **place_of_text)
        shortest, longest = min(shortest, mean - spread * (mean < 0)), max(longest, mean + spread)
    panel.set_xlim(shortest * 1.05, longest * 1.18 or 1)
    panel.set_title(_shortened(column.label), fontsize=10)
    panel.set_xlabel(metric.title, fontsize=9)
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)


def _shortened(label: str) -> str:
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 15]}…{label[-14:]}"
