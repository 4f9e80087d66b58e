"""Speaker identification: who of the known speakers it is (VoxCeleb1, or any folder of speaker folders)."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from mynah.downstream import interfaces
from mynah.utility.audio.labelled import LabelledSpeechDataset
from mynah.utility.demo.speech import demo_voxceleb1
from mynah.utility.errors import UserError
from mynah.utility.evaluation.classification import (
    classification_metrics,
    likeliest,
    record_predictions,
    write_predictions,
)
from mynah.utility.evaluation.confusion import confusion_counts, draw_confusion

from .dataset import SpeakerCorpus, SpeakerDataConfig, read_corpus
from .model import SpeakerClassifier, SpeakerModelConfig


class SpeakerConfig(interfaces.DownstreamConfig):
    """The schema of config.yaml."""

    datarc: SpeakerDataConfig = Field(default_factory=SpeakerDataConfig)
    model: SpeakerModelConfig = Field(default_factory=SpeakerModelConfig)


class DownstreamExpert(interfaces.DownstreamExpert):
    """A classifier of speakers, known from the corpus or, when rebuilt from a checkpoint, from its state."""

    Config = SpeakerConfig
    monitor = "accuracy"
    mode = "max"

    def __init__(
        self,
        upstream: interfaces.UpstreamInfo,
        config: SpeakerConfig,
        state: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        super().__init__(upstream, config, state, folder)
        self.speakers = self._corpus.speakers if state is None else list(state["speakers"])
        self.model = SpeakerClassifier(
            upstream.feature_size, len(self.speakers), config.model.projector_size, config.model.pooling
        )

    @classmethod
    def use_demo_data(cls, config: SpeakerConfig) -> None:
        config.datarc.file_path = str(demo_voxceleb1())
        config.datarc.split_list = ""

    def state(self) -> dict[str, Any]:
        return {"speakers": self.speakers}

    def get_dataset(self, split: str) -> LabelledSpeechDataset:
        """Labels are indices into self.speakers. train has random crops, dev and test whole utterances."""
        data = self.config.datarc
        utterances = self._corpus.utterances[split]
        if not utterances:
            raise UserError(
                f"{data.file_path} has no utterance for the split '{split}'; every split needs some "
                "(without a list, a speaker needs three utterances to have one in each split)"
            )
        indices = {speaker: index for index, speaker in enumerate(self.speakers)}
        unknown = sorted({speaker for _, speaker in utterances} - set(indices))
        if unknown:
            raise UserError(
                f"{data.file_path} has {len(unknown)} speakers that the checkpoint does not know, such as "
                f"{', '.join(unknown[:3])}; give datarc.file_path the corpus that it was trained on"
            )
        return LabelledSpeechDataset(
            [utterance for utterance, _ in utterances],
            [indices[speaker] for _, speaker in utterances],
            max_samples=data.max_timestep if split == "train" else None,
            seed=self.config.seed,
            trim_silence=data.trim_silence,
        )

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
        return classification_metrics(records, len(self.speakers))

    def write_report(self, split: str, records: dict[str, list], folder: Path) -> list[Path]:
        """predictions.csv (name, speaker, predicted, probability, correct) and confusion.png."""
        counts = confusion_counts(records["label"], records["predicted"], len(self.speakers))
        accuracy = self.log_records(split, records)["accuracy"]
        title = f"{split}: {len(records['name'])} utterances, accuracy {100 * accuracy:.1f} %"
        return [
            write_predictions(folder / "predictions.csv", records, self.speakers, column="speaker"),
            draw_confusion(counts, self.speakers, folder / "confusion.png", title),
        ]

    def predict(self, features: Tensor, lengths: Tensor) -> list[dict[str, Any]]:
        """The five likeliest, best first: {"speakers": [{"speaker": str, "probability": p}, ...]}."""
        guesses = likeliest(self.model(features, lengths), self.speakers)
        return [{"speakers": [{"speaker": name, "probability": p} for name, p in each]} for each in guesses]

    def format_prediction(self, result: dict[str, Any]) -> str:
        return ", ".join(f"{each['speaker']} {100 * each['probability']:.1f} %" for each in result["speakers"])

    @cached_property
    def _corpus(self) -> SpeakerCorpus:
        return read_corpus(self.config.datarc, self.skipped_files)
