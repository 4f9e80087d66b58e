"""What a test of speaker verification leaves: a table of scores, and a picture of them and of the errors."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from mynah.utility.data.media_files import printable
from mynah.utility.evaluation.figures import save_png
from mynah.utility.evaluation.verification import equal_error_rate, error_rates, min_detection_cost

from .trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DET_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999)
POINTS_DRAWN = 2000
DPI = 150


def write_scores(path: Path, trials: Sequence[Trial], scores: np.ndarray) -> Path:
    """A CSV with a row a trial: label (1 for one speaker), score (cosine), first, second."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["label", "score", "first", "second"])
        for trial, score in zip(trials, scores.tolist(), strict=True):
            names = (printable(name) for name in (trial.first, trial.second))
            table.writerow([int(trial.target), f"{score:.6f}", *names])
    return path


def draw_scores(path: Path, scores: np.ndarray, targets: np.ndarray, title: str, dev_threshold: float) -> Path:
    """Write a PNG: the scores' histograms with both thresholds, and the detection error trade-off.

    scores: (N,) finite, of both kinds. No pyplot state is used: safe in any process or thread.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_histograms(left, scores, targets, dev_threshold)
    _draw_trade_off(right, scores, targets)
    figure.suptitle(title)
    return save_png(figure, path)


def _draw_histograms(axes: "Axes", scores: np.ndarray, targets: np.ndarray, dev_threshold: float) -> None:
    low, high = float(scores.min()), float(scores.max())
    bins = np.linspace(low, high if high > low else low + 1e-3, 61)
    for own, color, name in ((False, "C1", "two speakers"), (True, "C0", "one speaker")):
        part = scores[targets == own]
        weights = np.full(len(part), 1 / len(part))
        axes.hist(part, bins, weights=weights, color=color, alpha=0.6, label=f"{name} ({len(part)})")
    _, threshold = equal_error_rate(error_rates(scores, targets))
    axes.axvline(threshold, color="black", linestyle="--", label=f"equal errors here: {threshold:.3f}")
    axes.axvline(dev_threshold, color="0.4", linestyle=":", label=f"threshold from dev: {dev_threshold:.3f}")
    axes.set(xlabel="cosine of the two embeddings", ylabel="share of the trials")
    axes.legend(fontsize=8)


def _draw_trade_off(axes: "Axes", scores: np.ndarray, targets: np.ndarray) -> None:
    """Misses over false alarms, both axes in deviations of a normal distribution (Martin et al. 1997)."""
    rates = error_rates(scores, targets)
    rate, _ = equal_error_rate(rates)
    kept = np.unique(np.linspace(0, len(rates.thresholds) - 1, POINTS_DRAWN).astype(int))
    shown = _deviates(rates.false_alarms[kept]), _deviates(rates.misses[kept])
    axes.plot(*shown, color="C0", label=f"minDCF {min_detection_cost(rates):.3f}")
    axes.plot(*(_deviates(np.array([rate])) for _ in range(2)), "o", color="black", label=f"EER {100 * rate:.2f} %")
    ticks, names = _deviates(np.array(DET_TICKS)), [f"{100 * tick:g}" for tick in DET_TICKS]
    axes.plot(ticks, ticks, color="0.7", linewidth=0.8)
    axes.set_xticks(ticks, names, rotation=60)
    axes.set_yticks(ticks, names)
    limits = (ticks[0], ticks[-1])
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="false alarms, %", ylabel="misses, %")
    axes.grid(linewidth=0.4)
    axes.legend(fontsize=8)


def _deviates(shares: np.ndarray) -> np.ndarray:
    normal = NormalDist()
    return np.array([normal.inv_cdf(share) for share in shares.clip(1e-6, 1 - 1e-6)])
