"""One label for an utterance, learned from a CSV of path, label and split (the template for new tasks)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.downstream import interfaces, speech
from mynah.utility.configuration.sections import Section
from mynah.utility.demo.speech import demo_labels
from mynah.utility.errors import UserError
from mynah.utility.evaluation.classification import (
    classification_metrics,
    likeliest,
    record_predictions,
    write_predictions,
)
from mynah.utility.nn.pooling import MeanPooling


class DataConfig(speech.SpeechDataConfig):
    """Where the data is; how it is read stands in downstream/speech.py."""

    file_path: str = ""
    """A CSV with the columns path (absolute, or relative to the CSV), label, split (train, dev or test)."""


class ModelConfig(Section):
    """The classifier's shape."""

    hidden_size: int = Field(128, gt=0)
    """Width between the features and the mean."""


class Config(interfaces.DownstreamConfig):
    """The schema of config.yaml: what every task has, and this task's own sections."""

    datarc: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)


class DownstreamExpert(speech.SpeechTask):
    """Linear, ReLU, mean over time, linear. What each method must do is said in downstream/interfaces.py, and
    in downstream/speech.py, which reads the data."""

    Config = Config
    monitor, mode = "accuracy", "max"

    def __init__(
        self,
        upstream: interfaces.UpstreamInfo,
        config: Config,
        state: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        super().__init__(upstream, config, state, folder)
        self.labels = state["labels"] if state else sorted({label for _, label in self.corpus["train"]})
        if len(self.labels) < 2:
            raise UserError(f"{config.datarc.file_path}: at least two different labels are needed to tell apart")
        self.classes = {label: index for index, label in enumerate(self.labels)}
        # Without the ReLU, features that are normalized over the utterance (CMVN) would all have the mean zero.
        self.hidden = nn.Sequential(nn.Linear(upstream.feature_size, config.model.hidden_size), nn.ReLU())
        self.pooling = MeanPooling(config.model.hidden_size)
        self.output = nn.Linear(self.pooling.out_size, len(self.labels))

    @classmethod
    def use_demo_data(cls, config: Config) -> None:
        config.datarc.file_path = str(demo_labels())

    def state(self) -> dict[str, Any]:
        return {"labels": self.labels}

    def read_corpus(self) -> speech.Corpus:
        """{split: [(utterance, its label), ...]}; the data is read on first use, so that inference needs none."""
        return self.read_table("label")

    def encode_label(self, target: str) -> int:
        """The index of a label; KeyError for one that training did not have."""
        return self.classes[target]

    def forward(
        self,
        split: str,
        features: Tensor,
        lengths: Tensor,
        labels: list[int],
        records: dict[str, list],
        names: list[str],
    ) -> Tensor:
        logits = self.logits(features, lengths)
        targets = torch.tensor(labels, device=logits.device)
        return record_predictions(logits, targets, names, None if split == "train" else records)

    def logits(self, features: Tensor, lengths: Tensor) -> Tensor:
        """features: (B, N, D), lengths: (B,) -> (B, number of labels)."""
        return self.output(self.pooling(self.hidden(features), lengths))

    def log_records(self, split: str, records: dict[str, list]) -> dict[str, float]:
        return classification_metrics(records, len(self.labels))

    def write_report(self, split: str, records: dict[str, list], folder: Path) -> list[Path]:
        return [write_predictions(folder / "predictions.csv", records, self.labels)]

    def predict(
        self, features: Tensor, lengths: Tensor, signals: Sequence[interfaces.SignalInfo] = ()
    ) -> list[dict[str, Any]]:
        best = likeliest(self.logits(features, lengths), self.labels, count=1)
        return [{"label": label, "probability": probability} for [(label, probability)] in best]
