"""Emotion recognition: how it was said (IEMOCAP, RAVDESS, CREMA-D, EmoDB)."""

from collections import defaultdict
from statistics import fmean

from pydantic import Field

from mynah.downstream import classification
from mynah.utility.demo.speech import demo_emotions

from .dataset import EmotionDataConfig, read_emotions


class EmotionConfig(classification.ClassificationConfig):
    """The schema of config.yaml."""

    datarc: EmotionDataConfig = Field(default_factory=EmotionDataConfig)


class DownstreamExpert(classification.ClassificationExpert):
    """A classifier of emotions."""

    Config = EmotionConfig
    name, names = "emotion", "emotions"

    @classmethod
    def use_demo_data(cls, config: EmotionConfig) -> None:
        config.datarc.file_path = str(demo_emotions())

    def read_corpus(self) -> dict[str, list[classification.Labelled]]:
        return read_emotions(self.config.datarc, self.skipped_files)

    def log_records(self, split: str, records: dict[str, list]) -> dict[str, float]:
        """Accuracy, and the unweighted average recall: the mean over the emotions that occur."""
        correct = defaultdict(list)
        for label, hit in zip(records["label"], records["correct"], strict=True):
            correct[label].append(hit)
        recall = fmean(fmean(hits) for hits in correct.values())
        return {**super().log_records(split, records), "unweighted_recall": recall}
