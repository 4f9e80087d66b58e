"""Error rates of transcripts, over a whole corpus, by jiwer."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import jiwer

RATES: dict[str, Callable[[list[str], list[str]], float]] = {"wer": jiwer.wer, "per": jiwer.wer, "cer": jiwer.cer}
"""Name -> edits over the units of all references: words, phones (which stand in a text as words do), characters."""


def record_sequences(
    names: Sequence[str],
    references: Sequence[str],
    hypotheses: Sequence[str],
    losses: Sequence[float],
    records: dict[str, list],
) -> None:
    """Append to `records`, a value an utterance: name, reference, hypothesis, loss."""
    columns = {"name": names, "reference": references, "hypothesis": hypotheses, "loss": losses}
    for key, column in columns.items():
        records.setdefault(key, []).extend(column)


def error_rates(records: dict[str, list], rates: Sequence[str]) -> dict[str, float]:
    """The error rates of these names over all utterances together, 0 for none (above 1 is possible); and the mean
    loss. Utterances without a reference count by the insertions alone."""
    references, hypotheses = records["reference"], records["hypothesis"]
    found = {name: corpus_rate(references, hypotheses, RATES[name]) for name in rates}
    return {**found, "loss": fmean(records["loss"])}


def corpus_rate(references: list[str], hypotheses: list[str], rate: Callable[[list[str], list[str]], float]) -> float:
    """`rate` of these texts; not a number where all references are empty."""
    if not any(text.strip() for text in references):
        return float("nan")
    return float(rate(references, hypotheses))


def write_transcripts(path: Path, records: dict[str, list], rate: str) -> Path:
    """A CSV with a row an utterance: name, reference, hypothesis, its own error rate."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "reference", "hypothesis", rate])
        columns = (records[key] for key in ("name", "reference", "hypothesis"))
        for name, reference, hypothesis in zip(*columns, strict=True):
            own = corpus_rate([reference], [hypothesis], RATES[rate])
            table.writerow([name, reference, hypothesis, f"{own:.4f}"])
    return path
