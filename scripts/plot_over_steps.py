"""Probe accuracy over pretraining time: a curve for each task of a table, whose upstreams are called NAME_STEP.

    python scripts/plot_over_steps.py result/benchmark/curve curve.png fbank

draws the rows NAME_STEP of that table over their steps, and the row `fbank` as a dashed line.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mynah.tables.metrics import Metric, scaled

Scores = dict[tuple[str, str], dict[str, tuple[float, float]]]
"""{(task, what is measured): {upstream: (mean, deviation)}}."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="folder of a table of run_benchmark.py")
    parser.add_argument("picture", type=Path, help="file to write, .png or .pdf")
    parser.add_argument("references", nargs="*", help="rows that become dashed lines")
    arguments = parser.parse_args()
    try:
        scores = read_scores(arguments.table / "results.csv")
        draw(scores, arguments.references).savefig(arguments.picture, dpi=110)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def read_scores(file: Path) -> Scores:
    """The means of a table's cells, as tables show them. Raises OSError."""
    scores: Scores = defaultdict(dict)
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["row"] == "cell" and row["test"]:
                key = row["metric"]
                values = scaled(key, float(row["test"])), scaled(key, float(row["deviation"] or 0))
                scores[row["task"], Metric(key, row["mode"]).title][row["upstream"]] = values
    return scores


def draw(scores: Scores, references: list[str]) -> Figure:
    """Raises ValueError for a task without a row NAME_STEP, and for a reference that no task has."""
    rows = {name for by_upstream in scores.values() for name in by_upstream}
    if unknown := [name for name in references if name not in rows]:
        raise ValueError(f"{', '.join(unknown)}: no such row with a result; the table has {', '.join(sorted(rows))}")
    if not scores:
        raise ValueError("the table has no result yet")
    figure = Figure(figsize=(4.5 * len(scores), 3.4), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)
    for panel, ((task, measured), by_upstream) in zip(panels[0], scores.items(), strict=True):
        points = sorted((step_of(name), *score) for name, score in by_upstream.items() if step_of(name) is not None)
        if not points:
            raise ValueError(f"{task}: no row is called NAME_STEP, such as m_1000; it has {', '.join(by_upstream)}")
        steps, means, deviations = zip(*points, strict=True)
        panel.errorbar(steps, means, deviations, marker="o", capsize=3)
        for number, name in enumerate(references):
            if name in by_upstream:
                panel.axhline(by_upstream[name][0], linestyle="--", color=f"C{number + 1}", label=name)
                panel.legend()
        panel.set(title=task, xlabel="pretraining steps", ylabel=f"test {measured}")
    return figure


def step_of(name: str) -> int | None:
    """1000 of "m_1000"; None of a name without a step."""
    step = name.rpartition("_")[2]
    return int(step) if "_" in name and step.isdecimal() else None


if __name__ == "__main__":
    main()
