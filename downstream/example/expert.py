"""One label for an utterance, learned from a CSV of path, label and split (the template for new tasks)."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.downstream import interfaces
from mynah.utility.audio.corpus import Utterance, scan_corpora
from mynah.utility.audio.labelled import LabelledSpeechDataset
from mynah.utility.configuration.sections import Section, rules
from mynah.utility.data.tables import LabelledFile, read_label_table
from mynah.utility.demo.speech import demo_labels
from mynah.utility.errors import UserError
from mynah.utility.evaluation.classification import (
    classification_metrics,
    likeliest,
    record_predictions,
    write_predictions,
)
from mynah.utility.nn.pooling import MeanPooling


class DataConfig(Section):
    """Where the data is and how it is read."""

    file_path: str = ""
    """A CSV with the columns path (absolute, or relative to the CSV), label, split (train, dev or test)."""
    max_timestep: int | None = 128000
    """Samples at 16 kHz of a training crop, null for none; dev and test are always read whole."""
    min_timestep: int = Field(1600, ge=1)
    """Samples at 16 kHz; shorter files are skipped."""
    max_seconds: float = Field(3600.0, gt=0)
    """Longer files are skipped: dev and test read them whole."""
    max_bad_fraction: float = Field(0.05, ge=0, le=1)
    """The share of unreadable or too short files that is still accepted."""

    @rules
    def _lengths_agree(self) -> Iterable[str | None]:
        if self.max_timestep is not None and self.max_timestep < self.min_timestep:
            yield f"max_timestep: expected min_timestep ({self.min_timestep}) or more, got {self.max_timestep}"


class ModelConfig(Section):
    """The classifier's shape."""

    hidden_size: int = Field(128, gt=0)
    """Width between the features and the mean."""


class Config(interfaces.DownstreamConfig):
    """The schema of config.yaml: what every task has, and this task's own sections."""

    datarc: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)


class DownstreamExpert(interfaces.DownstreamExpert):
    """Linear, ReLU, mean over time, linear. What each method must do is said in downstream/interfaces.py."""

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
        self.labels = state["labels"] if state else sorted({row.label for row in self.table.values()})
        # Without the ReLU, features that are normalized over the utterance (CMVN) would all have the mean zero.
        self.hidden = nn.Sequential(nn.Linear(upstream.feature_size, config.model.hidden_size), nn.ReLU())
        self.pooling = MeanPooling(config.model.hidden_size)
        self.output = nn.Linear(self.pooling.out_size, len(self.labels))

    @classmethod
    def use_demo_data(cls, config: Config) -> None:
        config.datarc.file_path = str(demo_labels())

    def state(self) -> dict[str, Any]:
        return {"labels": self.labels}

    @cached_property
    def table(self) -> dict[str, LabelledFile]:
        """{path: its row}; the data is read on first use, so that inference needs none."""
        return read_label_table(self.config.datarc.file_path)

    @cached_property
    def utterances(self) -> list[Utterance]:
        """Those of the table that can be read."""
        data = self.config.datarc
        return scan_corpora(
            {"table": data.file_path},
            min_samples=data.min_timestep,
            max_seconds=data.max_seconds,
            max_bad_fraction=data.max_bad_fraction,
            log_path=self.skipped_files,
        )

    def get_dataset(self, split: str) -> LabelledSpeechDataset:
        data = self.config.datarc
        utterances = [utterance for utterance in self.utterances if self.table[utterance.path].split == split]
        if not utterances:
            raise UserError(f"{data.file_path}: no file of the split '{split}' can be used; every split needs some")
        names = [self.table[utterance.path].label for utterance in utterances]
        classes = {label: index for index, label in enumerate(self.labels)}
        if unknown := sorted(set(names) - set(classes)):
            raise UserError(
                f"{data.file_path}: the labels {', '.join(unknown)} of the split '{split}' are none of those that "
                f"the task was trained with, {', '.join(self.labels)}; correct them, or train anew"
            )
        labels = [classes[name] for name in names]
        max_samples = data.max_timestep if split == "train" else None
        return LabelledSpeechDataset(utterances, labels, max_samples, self.config.seed)

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

    def predict(self, features: Tensor, lengths: Tensor) -> list[dict[str, Any]]:
        best = likeliest(self.logits(features, lengths), self.labels, count=1)
        return [{"label": label, "probability": probability} for [(label, probability)] in best]
