"""Probe accuracy over pretraining time: a curve for each task of a table, whose upstreams are called NAME_STEP.

python scripts/plot_over_steps.py result/benchmark/curve curve.png [fbank ...]     rows that become dashed lines
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

folder, picture, references = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
scores: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
with (folder / "results.csv").open(newline="") as file:
    for row in csv.DictReader(file):
        if row["row"] == "cell" and row["test"]:
            scores[row["task"]][row["upstream"]] = 100 * float(row["test"]), 100 * float(row["deviation"] or 0)

figure = Figure(figsize=(4.5 * len(scores), 3.4), layout="constrained")
panels = figure.subplots(1, len(scores), squeeze=False)
for panel, (task, by_upstream) in zip(panels[0], scores.items(), strict=True):
    points = sorted(
        (int(name.rpartition("_")[2]), *score)
        for name, score in by_upstream.items()
        if name.rpartition("_")[2].isdecimal()
    )
    steps, means, deviations = zip(*points, strict=True)
    panel.errorbar(steps, means, deviations, marker="o", capsize=3)
    for number, name in enumerate(references):
        if name in by_upstream:
            panel.axhline(by_upstream[name][0], linestyle="--", color=f"C{number + 1}", label=name)
            panel.legend()
    panel.set(title=task, xlabel="pretraining steps", ylabel="test accuracy %")
figure.savefig(picture, dpi=110)
