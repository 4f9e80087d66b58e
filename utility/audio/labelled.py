"""Utterances with a label each: what a classification task's get_dataset returns."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from mynah.utility.audio.corpus import SpeechDataset, Utterance


class LabelledSpeechDataset(Dataset):
    """SpeechDataset's items with `label` added, and `fixed`: whether the signal is the same in every pass.

    utterances and labels: one label an utterance, of any plain type. max_samples: length of a random crop at 16 kHz,
    a function of (seed, pass, index) alone; None keeps whole utterances. Keys are (pass, index), or index for pass 0.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[Any],
        max_samples: int | None,
        seed: int,
        trim_silence: bool = False,
    ):
        if len(utterances) != len(labels):
            raise ValueError(f"{len(utterances)} utterances but {len(labels)} labels")
        self.speech = SpeechDataset(utterances, max_samples, seed, trim_silence=trim_silence)
        self.labels = list(labels)
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
        return {**self.speech[key], "label": self.labels[index], "fixed": self.fixed[index]}

    def peek(self, key: tuple[int, int]) -> dict[str, Any]:
        """The item without its signal, as SpeechDataset.peek."""
        return {**self.speech.peek(key), "label": self.labels[key[1]], "fixed": self.fixed[key[1]]}
