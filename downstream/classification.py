"""Tasks that give each utterance one label: everything but where the utterances and their labels come from."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.downstream import interfaces
from mynah.downstream.speech import Corpus, SpeechTask, SpeechTaskConfig
from mynah.utility.audio.corpus import Utterance
from mynah.utility.configuration.sections import Section, one_of
from mynah.utility.evaluation.classification import (
    classification_metrics,
    likeliest,
    record_predictions,
    write_predictions,
)
from mynah.utility.evaluation.confusion import confusion_counts, draw_confusion
from mynah.utility.nn.pooling import POOLINGS

Labelled = tuple[Utterance, str]


class ClassifierConfig(Section):
    """The head of SUPERB's utterance tasks: linear, pooling over time, linear."""

    projector_size: int = Field(256, gt=0)
    """Width between the features and the pooling."""
    pooling: Annotated[str, one_of(POOLINGS)] = "mean"
    """mean, attentive, statistics or attentive_statistics."""


class ClassificationConfig(SpeechTaskConfig):
    """The schema of such a task; a subclass declares its `datarc`."""

    model: ClassifierConfig = Field(default_factory=ClassifierConfig)


class Classifier(nn.Module):
    """features: (B, N, feature_size), lengths: (B,) int64, at least 1 each -> logits (B, num_labels)."""

    def __init__(self, feature_size: int, num_labels: int, config: ClassifierConfig):
        super().__init__()
        self.projector = nn.Linear(feature_size, config.projector_size)
        self.pooling = POOLINGS[config.pooling](config.projector_size)
        self.output = nn.Linear(self.pooling.out_size, num_labels)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.output(self.pooling(self.projector(features), lengths))


class ClassificationExpert(SpeechTask):
    """A subclass says what `read_corpus` finds, a label an utterance, and may set what is below."""

    Config = ClassificationConfig
    monitor = "accuracy"
    mode = "max"

    def __init__(
        self,
        upstream: interfaces.UpstreamInfo,
        config: Any,
        state: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        super().__init__(upstream, config, state, folder)
        self.labels = self.label_names(self.corpus) if state is None else list(state[self.names])
        self.check_labels(self.labels)
        self.model = Classifier(upstream.feature_size, len(self.labels), config.model)

    @property
    def reads_mean(self) -> bool:
        """Whether nothing but a linear layer comes before the mean over time."""
        return self.config.model.pooling == "mean"

    def label_names(self, corpus: Corpus) -> list[str]:
        """The classes, in the order of their indices: those of training, sorted, unless a subclass knows better."""
        return sorted({label for _, label in corpus["train"]})

    def encode_label(self, target: str) -> int:
        return self._indices[target]

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {label: index for index, label in enumerate(self.labels)}

    def state(self) -> dict[str, Any]:
        return {self.names: self.labels}

    def forward(
        self,
        split: str,
        features: Tensor,
        lengths: Tensor,
        labels: list[int],
        records: dict[str, list],
        names: list[str],
    ) -> Tensor:
        logits = self.model(features, lengths)
        targets = torch.tensor(labels, device=logits.device)
        return record_predictions(logits, targets, names, None if split == "train" else records)

    def log_records(self, split: str, records: dict[str, list]) -> dict[str, float]:
        return classification_metrics(records, len(self.labels))

    def write_report(self, split: str, records: dict[str, list], folder: Path) -> list[Path]:
        """predictions.csv (name, the label, predicted, probability, correct) and confusion.png."""
        counts = confusion_counts(records["label"], records["predicted"], len(self.labels))
        accuracy = self.log_records(split, records)["accuracy"]
        title = f"{split}: {len(records['name'])} utterances, accuracy {100 * accuracy:.1f} %"
        return [
            write_predictions(folder / "predictions.csv", records, self.labels, column=self.name),
            draw_confusion(counts, self.labels, folder / "confusion.png", title),
        ]

    def predict(
        self, features: Tensor, lengths: Tensor, signals: Sequence[interfaces.SignalInfo] = ()
    ) -> list[dict[str, Any]]:
        """The five likeliest, best first: {"labels": [{"label": str, "probability": p}, ...]}."""
        guesses = likeliest(self.model(features, lengths), self.labels)
        return [{self.names: [{self.name: label, "probability": p} for label, p in each]} for each in guesses]

    def format_prediction(self, result: dict[str, Any]) -> str:
        return ", ".join(f"{each[self.name]} {100 * each['probability']:.1f} %" for each in result[self.names])


def balanced(items: Sequence[Labelled]) -> list[Labelled]:
    """The items, those of rarer labels repeated until every label has about as many as the most frequent one.

    Each label is then as likely in a batch as with a sampler that weights by one over its count, but a pass still has
    every item, and a repeated one has a crop of its own each time.
    """
    by_label: dict[str, list[Labelled]] = {}
    for item in items:
        by_label.setdefault(item[1], []).append(item)
    most = max(map(len, by_label.values()), default=0)
    return [item for own in by_label.values() for item in (own * -(-most // len(own)))[:most]]
