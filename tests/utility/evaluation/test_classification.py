"""Loss, metrics, guesses and the table of predictions of a classification task."""

import csv

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mynah.utility.evaluation.classification import (
    classification_metrics,
    likeliest,
    record_predictions,
    write_predictions,
)

torchmetrics = pytest.importorskip("torchmetrics.functional.classification")


def test_metrics_equal_torchmetrics_over_batches_of_different_sizes():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 12, generator=generator)
    targets = torch.randint(0, 12, (50,), generator=generator)
    records: dict[str, list] = {}
    for part in (slice(0, 32), slice(32, 43), slice(43, 50)):
        record_predictions(logits[part], targets[part], [str(n) for n in range(50)][part], records)
    metrics = classification_metrics(records, num_classes=12)
    for key, top in (("accuracy", 1), ("top5", 5)):
        expected = torchmetrics.multiclass_accuracy(logits, targets, num_classes=12, top_k=top, average="micro")
        assert metrics[key] == pytest.approx(float(expected))
    assert metrics["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)), rel=1e-5)
    assert metrics["chance"] == 1 / 12
    assert metrics["accuracy"] < metrics["top5"] < 1


def test_returned_loss_is_the_mean_cross_entropy_and_trains():
    logits = torch.randn(4, 3, requires_grad=True)
    targets = torch.tensor([0, 2, 1, 1])
    loss = record_predictions(logits, targets, list("abcd"), {})
    expected = -logits.detach().log_softmax(-1)[torch.arange(4), targets].mean()
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    torch.testing.assert_close(logits.grad.sum(), torch.tensor(0.0))
    assert logits.grad.abs().sum() > 0


def test_top5_with_fewer_than_five_classes_is_always_right():
    records: dict[str, list] = {}
    record_predictions(torch.tensor([[5.0, 1.0, 0.0]]), torch.tensor([2]), ["a"], records)
    metrics = classification_metrics(records, num_classes=3)
    assert metrics["top5"] == 1 and metrics["accuracy"] == 0


def test_records_are_plain_values():
    records: dict[str, list] = {}
    record_predictions(torch.randn(3, 7).bfloat16(), torch.tensor([0, 1, 2]), list("abc"), records)
    assert {key: len(values) for key, values in records.items()} == dict.fromkeys(records, 3)
    assert {type(value) for values in records.values() for value in values} <= {str, int, float, bool}


def test_likeliest_classes_come_best_first_with_their_probabilities():
    probabilities = torch.tensor([[0.1, 0.6, 0.3], [0.8, 0.05, 0.15]])
    best = likeliest(probabilities.log(), ["anna", "ben", "cem"], count=2)
    assert [[name for name, _ in row] for row in best] == [["ben", "cem"], ["anna", "cem"]]
    assert best[0][0][1] == pytest.approx(0.6)
    assert [len(row) for row in likeliest(probabilities.log(), ["anna", "ben", "cem"])] == [3, 3]


def test_table_of_predictions_survives_names_with_commas_and_accents(tmp_path):
    records: dict[str, list] = {}
    logits = torch.tensor([[0.0, 3.0], [4.0, 0.0]])
    record_predictions(logits, torch.tensor([1, 1]), ["a, b.wav", "ü.wav"], records)
    path = write_predictions(tmp_path / "predictions.csv", records, ["anna", "ben"], column="speaker")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a, b.wav", "ü.wav"]
    assert [row["speaker"] for row in rows] == ["ben", "ben"]
    assert [row["predicted"] for row in rows] == ["ben", "anna"]
    assert [row["correct"] for row in rows] == ["True", "False"]
    assert float(rows[1]["probability"]) == pytest.approx(1 / (1 + 2.718281828**-4), abs=1e-4)


class WaitsForTheDevice(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: values read, and shapes that depend on values."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if operation.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "is_nonzero"):
            self.waits.append(operation)
        return operation(*arguments, **(options or {}))


def test_a_training_step_records_nothing_and_waits_for_nothing():
    logits, targets = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0])
    records: dict[str, list] = {}
    with WaitsForTheDevice() as mode:
        loss = record_predictions(logits, targets, list("abcd"), None)
        loss.backward()
    assert mode.waits == []
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, targets))
    record_predictions(logits.detach(), targets, list("abcd"), records)
    assert len(records["predicted"]) == 4
