"""Error rates of transcripts, over a whole corpus, by jiwer."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import jiwer

Alignment = jiwer.WordOutput | jiwer.CharacterOutput

RATES: dict[str, Callable[[list[str], list[str]], Alignment]] = {
    "wer": jiwer.process_words,
    "per": jiwer.process_words,
    "cer": jiwer.process_characters,
}
"""Error rate -> how texts are aligned for it: by words, by phones (which stand in a text as words do), by characters.
Spaces between words are characters."""
UNITS = {"wer": "words", "per": "phones", "cer": "characters"}


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
    """The error rates of these names over all utterances together (above 1 is possible), the mean loss, and the parts
    of the first rate: substitutions, insertions and deletions for each unit of the references.

    Utterances without a reference count by the insertions alone; without any reference rates are not numbers (nan).
    """
    references, hypotheses = records["reference"], records["hypothesis"]
    aligned = {name: RATES[name](references, hypotheses) for name in rates}
    found = {name: sum(edit_shares(each).values()) for name, each in aligned.items()}
    return {**found, **edit_shares(aligned[rates[0]]), "loss": fmean(records["loss"])}


def edit_shares(aligned: Alignment) -> dict[str, float]:
    """Substitutions, insertions and deletions, each divided by the units of all references."""
    units = aligned.hits + aligned.substitutions + aligned.deletions
    edits = {name: getattr(aligned, name) for name in ("substitutions", "insertions", "deletions")}
    return {name: count / units if units else float("nan") for name, count in edits.items()}


def write_transcripts(path: Path, records: dict[str, list], rate: str) -> Path:
    """A CSV with a row an utterance: name, reference, hypothesis, its own error rate ("" without a reference)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "reference", "hypothesis", rate])
        columns = (records[key] for key in ("name", "reference", "hypothesis"))
        for name, reference, hypothesis in zip(*columns, strict=True):
            own = sum(edit_shares(RATES[rate]([reference], [hypothesis])).values())
            table.writerow([name, reference, hypothesis, "" if own != own else f"{own:.4f}"])
    return path
