"""Batches for masked acoustic pretraining."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from mynah.utility.acoustic.features import Positions
from mynah.utility.acoustic.masking import MaskingConfig, batch_mask_plans, draw_mask_plan
from mynah.utility.audio.corpus import CorpusConfig, SpeechDataset, Utterance, scan_corpora
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.nn.padding import pad_signals
from mynah.utility.training.loaders import bad_items

MASK_STREAM = 1
"""Sets the masks' random numbers apart from the crops', which are drawn of the same (seed, pass, index)."""


def find_utterances(datarc: CorpusConfig, positions: Positions, log_path: Path | None) -> list[Utterance]:
    """What pretraining uses of the corpora, held-out utterances among them; see `scan_corpora`. Raises UserError."""
    return scan_corpora(
        datarc.file_path,
        min_samples=max(datarc.min_timestep, positions.min_samples),
        max_bad_fraction=datarc.max_bad_fraction,
        log_path=log_path,
        max_seconds=datarc.max_seconds if datarc.max_timestep is None or datarc.trim_silence else math.inf,
    )


class MaskedSpeechDataset(Dataset):
    """Crops and their mask plans; both depend on the seed, the pass and the utterance alone.

    It holds nothing of the model, because a spawned worker is sent a copy of it.
    """

    def __init__(self, speech: SpeechDataset, positions: Positions, num_bins: int, masking: MaskingConfig):
        self.speech, self.positions, self.num_bins, self.masking = speech, positions, num_bins, masking

    def __len__(self) -> int:
        return len(self.speech)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        item = self.speech[key]
        if item["signal"] is None:
            return item
        if len(item["signal"]) < self.positions.min_samples:  # what trimming the silence left
            return {**item, "signal": None, "error": f"too short: {len(item['signal'])} samples after trimming"}
        generator = np.random.default_rng([*item["rng_key"], MASK_STREAM])
        count = self.positions.count(len(item["signal"]))
        return {**item, "plan": draw_mask_plan(count, self.num_bins, self.masking, generator)}


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items -> {"wavs": (B, T), "lengths": (B,), "plan": of (B, N), "names", "bad", "audio_seconds"}.

    Where not one of them could be read, no names and "bad" alone.
    """
    readable = [item for item in items if item["signal"] is not None]
    if not readable:
        return {"names": [], "bad": bad_items(items)}
    wavs, lengths = pad_signals([item["signal"] for item in readable])
    return {
        "wavs": wavs,
        "lengths": lengths,
        "plan": batch_mask_plans([item["plan"] for item in readable]),
        "names": [item["name"] for item in readable],
        "bad": bad_items(items),
        "audio_seconds": float(lengths.sum()) / SAMPLE_RATE,
    }
