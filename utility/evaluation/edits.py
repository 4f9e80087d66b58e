"""The errors of transcripts as a picture: how many of which kind, and what is taken for what."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.utility.evaluation.figures import save_png
from mynah.utility.evaluation.sequences import RATES, UNITS, Alignment, edit_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTHING = "\N{EMPTY SET}"
"""Stands for what is not there: left of an insertion, right of a deletion."""
SPACE = "\N{OPEN BOX}"
SHOWN = 20
DPI = 150
COLORS = {"substitutions": "tab:blue", "insertions": "tab:orange", "deletions": "tab:green"}
KINDS = {"substitute": "substitutions", "insert": "insertions", "delete": "deletions"}
"""jiwer's name of an edit -> ours."""


def count_edits(aligned: Alignment) -> Counter[tuple[str, str, str]]:
    """(kind, what stands in the reference, what was said instead) -> how often; NOTHING where one is empty."""
    edits: Counter[tuple[str, str, str]] = Counter()
    for reference, hypothesis, chunks in zip(aligned.references, aligned.hypotheses, aligned.alignments, strict=True):
        for chunk in chunks:
            if chunk.type == "equal":
                continue
            meant = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            said = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            length = max(len(meant), len(said))
            pairs = zip(meant or [NOTHING] * length, said or [NOTHING] * length, strict=True)
            edits.update((KINDS[chunk.type], *pair) for pair in pairs)
    return edits


def draw_errors(records: dict[str, list], rates: Sequence[str], path: Path, title: str) -> Path:
    """Write a PNG with a row an error rate: the shares of each kind of error, what is most often taken for what, and
    what is most often left out or added.

    No pyplot state is used: safe in any process or thread.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.2 * len(rates)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    rows = figure.subplots(len(rates), 3, squeeze=False, width_ratios=(1, 1.5, 1.5))
    for (left, middle, right), rate in zip(rows, rates, strict=True):
        aligned = RATES[rate](records["reference"], records["hypothesis"])
        _draw_shares(left, edit_shares(aligned), rate)
        edits = count_edits(aligned)
        _draw_most_frequent(middle, edits, ("substitutions",), f"confusions of {UNITS[rate]}")
        _draw_most_frequent(right, edits, ("insertions", "deletions"), f"{UNITS[rate]} added or left out")
    return save_png(figure, path)


def _draw_shares(axes: "Axes", shares: dict[str, float], rate: str) -> None:
    percent = [100 * share if share == share else 0.0 for share in shares.values()]
    bars = axes.bar(list(shares), percent, color=[COLORS[name] for name in shares])
    axes.bar_label(bars, fmt="%.1f")
    axes.margins(y=0.1)
    axes.tick_params(axis="x", labelsize=8)
    axes.set(ylabel=f"% of the references' {UNITS[rate]}", title=f"{rate.upper()} {sum(percent):.2f} %")


def _draw_most_frequent(axes: "Axes", edits: Counter[tuple[str, str, str]], kinds: Sequence[str], what: str) -> None:
    own = {edit: count for edit, count in edits.items() if edit[0] in kinds}
    top = sorted(own.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    places = range(len(top))
    axes.barh(places, [count for _, count in top], color=[COLORS[kind] for (kind, _, _), _ in top])
    axes.set_yticks(places, [f"{_shown(meant)} \N{RIGHTWARDS ARROW} {_shown(said)}" for (_, meant, said), _ in top])
    axes.invert_yaxis()
    axes.set_xlim(0, None if top else 1)  # of an empty panel the counts would begin below zero
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel=f"times (the {SHOWN} most frequent)", title=f"{sum(own.values())} {what}")


def _shown(unit: str) -> str:
    text = SPACE if unit == " " else unit if len(unit) <= 24 else f"{unit[:23]}\N{HORIZONTAL ELLIPSIS}"
    return text.replace("$", r"\$")  # else the start of a formula
