"""Utterances with a label each: what a task's get_dataset returns."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset

from mynah.utility.audio.corpus import SpeechDataset, Utterance

AtCrop = Callable[[Any, int, int], Any]
"""(an utterance's label, the file's sample that its signal begins with, samples of the signal) -> an item's label."""


class LabelledSpeechDataset(Dataset):
    """SpeechDataset's items with `label` added, and `fixed`: whether the signal is the same in every pass.

    utterances and labels: one label an utterance, of any type. max_samples: length of a random crop at 16 kHz,
    a function of (seed, pass, index) alone; None keeps whole utterances. at_crop: makes the item's label of the
    utterance's, where it depends on the crop (`FrameLabels`). Keys are (pass, index), or index for pass 0.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[Any],
        max_samples: int | None,
        seed: int,
        trim_silence: bool = False,
        at_crop: AtCrop | None = None,
        gain_db: float = 0.0,
    ):
        if len(utterances) != len(labels):
            raise ValueError(f"{len(utterances)} utterances but {len(labels)} labels")
        self.speech = SpeechDataset(utterances, max_samples, seed, trim_silence, gain_db)
        self.labels, self.at_crop = list(labels), at_crop
        self.fixed = [max_samples is None or utterance.samples <= max_samples for utterance in utterances]

    @property
    def lengths(self) -> list[int]:
        """Samples at 16 kHz of every item, after cropping."""
        return self.speech.lengths

    @property
    def names(self) -> list[str]:
        """Of every item within its corpus."""
        return self.speech.names

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        index = key[1] if isinstance(key, tuple) else key
        item, label = self.speech[key], self.labels[index]
        if self.at_crop is not None and item["signal"] is not None:
            label = self.at_crop(label, item["start"], len(item["signal"]))
        return {**item, "label": label, "fixed": self.fixed[index]}

    def peek(self, key: tuple[int, int]) -> dict[str, Any]:
        """The item without its signal, as SpeechDataset.peek; without "source" too where the label is not known."""
        item, label = self.speech.peek(key), self.labels[key[1]]
        if self.at_crop is not None and item["start"] is None:
            item["source"] = None
        elif self.at_crop is not None:
            label = self.at_crop(label, item["start"], item["length"])
        return {**item, "label": label, "fixed": self.fixed[key[1]]}
