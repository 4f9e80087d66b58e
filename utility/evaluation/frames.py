"""Classification of frames: records, metrics, tables, and the segments that predictions make."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mynah.utility.audio.alignment import IGNORED

PICTURED = 4
"""Of so many utterances the frames are kept one by one, for pictures."""


def record_frames(
    logits: Tensor, targets: Tensor, losses: Tensor, lengths: Tensor, names: Sequence[str], records: dict[str, list]
) -> None:
    """Append to `records`, a value an utterance: name, frames (with a label), loss (their sum, nats), counts:
    [[label, predicted, frames], ...] of the pairs that occur, and for pictures of the first utterances true and
    predicted, [[class, frames], ...] in order of time, [] for the others.

    logits: (B, N, C); targets: (B, N) int64, IGNORED for frames without a label; losses: (B, N); lengths: (B,).
    """
    predicted, truth = logits.argmax(-1).cpu().numpy(), targets.cpu().numpy()
    sums, ends = losses.sum(1).tolist(), lengths.tolist()
    for row, name in enumerate(names):
        kept = ends[row] if len(records.get("name", ())) < PICTURED else 0
        counted = truth[row] != IGNORED
        pairs = np.stack([truth[row][counted], predicted[row][counted]], 1)
        found, counts = np.unique(pairs, axis=0, return_counts=True)
        values = {
            "name": name,
            "frames": int(counted.sum()),
            "loss": sums[row],
            "counts": np.concatenate([found, counts[:, None]], 1).tolist(),
            "true": _run_lengths(truth[row][:kept]),
            "predicted": _run_lengths(predicted[row][:kept]),
        }
        for key, value in values.items():
            records.setdefault(key, []).append(value)


def _run_lengths(labels: np.ndarray) -> list[list[int]]:
    return [[int(label), len(list(run))] for label, run in itertools.groupby(labels)]


def runs_in_time(runs: Sequence[Sequence[int]], times: np.ndarray) -> list[tuple[float, float, int]]:
    """[[class, frames], ...] -> (start, end, class) in seconds of those that have a class; two meet half-way between
    the centres of their frames. times: (N,) seconds, the centres of all the frames."""
    half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.0
    edges = np.concatenate([times - half, times[-1:] + half])
    bounds = np.cumsum([0, *(frames for _, frames in runs)])
    parts = zip(runs, edges[bounds[:-1]].tolist(), edges[bounds[1:]].tolist(), strict=True)
    return [(start, end, label) for (label, _), start, end in parts if label != IGNORED]


def confusion_of(records: dict[str, list], num_classes: int) -> np.ndarray:
    """The records' counts -> (C, C) int64: row = true class, column = predicted class."""
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    for counts in records["counts"]:
        for label, predicted, count in counts:
            matrix[label, predicted] += count
    return matrix


def frame_metrics(records: dict[str, list], num_classes: int) -> dict[str, float]:
    """Over all frames of the records: accuracy in [0, 1], loss in nats; chance, the share of the most frequent class.

    Without any labelled frame they are not numbers (nan).
    """
    matrix, frames = confusion_of(records, num_classes), sum(records["frames"])
    if not frames:
        return dict.fromkeys(("accuracy", "loss", "chance"), float("nan"))
    return {
        "accuracy": float(np.trace(matrix) / frames),
        "loss": sum(records["loss"]) / frames,
        "chance": float(matrix.sum(1).max() / frames),
    }


def write_frame_table(path: Path, records: dict[str, list]) -> Path:
    """A CSV with a row an utterance: name, frames with a label, accuracy and mean loss over them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "frames", "accuracy", "loss"])
        columns = (records[key] for key in ("name", "frames", "loss", "counts"))
        for name, frames, loss, counts in zip(*columns, strict=True):
            correct = sum(count for label, predicted, count in counts if label == predicted)
            shares = [f"{value / frames:.4f}" if frames else "" for value in (correct, loss)]
            table.writerow([name, frames, *shares])
    return path


def label_runs(probabilities: Tensor, times: np.ndarray, seconds: float) -> Iterator[tuple[int, dict[str, Any]]]:
    """Runs of one likeliest class: (class, {"start", "end", "probability"}), the mean over its positions.

    probabilities: (N, C); times: (N,) seconds, the centres of the positions. Two runs meet half-way between the
    centres of their positions; the first begins at 0 and the last ends with the signal, at `seconds`.
    """
    best, labels = probabilities.detach().max(-1)
    changes = torch.nonzero(labels[1:] != labels[:-1]).flatten().add(1).tolist()
    bounds = [0, *changes, len(labels)]
    edges = [0.0, *((times[index - 1] + times[index]) / 2 for index in changes), seconds]
    for first, last, start, end in zip(bounds[:-1], bounds[1:], edges[:-1], edges[1:], strict=True):
        yield (
            int(labels[first]),
            {
                "start": round(float(start), 4),
                "end": round(float(end), 4),
                "probability": float(best[first:last].mean()),
            },
        )
