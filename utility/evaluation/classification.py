"""Classification of utterances: loss, records, metrics and tables of predictions."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch.nn.functional as F
from torch import Tensor

TOP = 5


def record_predictions(
    logits: Tensor, targets: Tensor, names: Sequence[str], records: dict[str, list] | None
) -> Tensor:
    """The mean cross-entropy of a batch; what the metrics and the table need is appended to `records`.

    records: None in training, where nobody reads them: to read values from a GPU is to wait for it.
    logits: (B, C); targets: (B,) int64; names: B strings. Returns a scalar. `records` gains B values each of
    name, label and predicted (class indices), probability (of the predicted class), correct, top5 and loss.
    With fewer than five classes, top5 asks for the target among all of them.
    """
    logits = logits.float()
    losses = F.cross_entropy(logits, targets, reduction="none")
    if records is None:
        return losses.mean()
    probabilities, best = logits.detach().softmax(dim=-1).topk(min(TOP, logits.shape[-1]), dim=-1)
    hits = best == targets[:, None]
    values = {
        "name": list(names),
        "label": targets.tolist(),
        "predicted": best[:, 0].tolist(),
        "probability": probabilities[:, 0].tolist(),
        "correct": hits[:, 0].tolist(),
        "top5": hits.any(dim=-1).tolist(),
        "loss": losses.tolist(),
    }
    for key, column in values.items():
        records.setdefault(key, []).extend(column)
    return losses.mean()


def classification_metrics(records: dict[str, list], num_classes: int) -> dict[str, float]:
    """Means over what record_predictions recorded: accuracy and top5 in [0, 1], loss in nats; and chance, 1 / C."""
    means = {"accuracy": fmean(records["correct"]), "top5": fmean(records["top5"]), "loss": fmean(records["loss"])}
    return {**means, "chance": 1 / num_classes}


def likeliest(logits: Tensor, classes: Sequence[str], count: int = TOP) -> list[list[tuple[str, float]]]:
    """logits: (B, C) -> each input's likeliest classes, (name, probability), best first; `count` or all of them."""
    probabilities, indices = logits.float().softmax(dim=-1).topk(min(count, len(classes)), dim=-1)
    return [
        [(classes[index], probability) for index, probability in zip(*row, strict=True)]
        for row in zip(indices.tolist(), probabilities.tolist(), strict=True)
    ]


def write_predictions(path: Path, records: dict[str, list], classes: Sequence[str], column: str = "label") -> Path:
    """A CSV with a row an utterance: name, `column` (the true class), predicted, probability, correct."""
    keys = ("name", "label", "predicted", "probability", "correct")
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", column, "predicted", "probability", "correct"])
        for name, label, predicted, probability, correct in zip(*(records[key] for key in keys), strict=True):
            table.writerow([name, classes[label], classes[predicted], f"{probability:.4f}", correct])
    return path
