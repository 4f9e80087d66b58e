"""Batches of clips and masked captions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mynah.utility.albert.masked_captions import CaptionMaskingConfig, mask_captions, pad_captions
from mynah.utility.captions.corpus import ClipDataset
from mynah.utility.training.loaders import bad_items
from mynah.utility.video.frames import square_frames

MASK_STREAM = 1
"""Sets the masks' random numbers apart from the crops', which are drawn of the same (seed, pass, index)."""


class MaskedClips(Dataset):
    """Clips with masked captions; the masks depend on the seed, the pass and the clip's index alone."""

    def __init__(self, clips: ClipDataset, tokenizer: Any, masking: CaptionMaskingConfig, seed: int, frame_size: int):
        self.clips, self.tokenizer, self.masking = clips, tokenizer, masking
        self.seed, self.frame_size = seed, frame_size

    @property
    def lengths(self) -> Sequence[int]:
        return self.clips.lengths

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        item = self.clips[key]
        if item["signal"] is None:
            return item
        ids = [self.tokenizer.encode(text, max_length=self.masking.max_length).ids for text in item["label"]]
        ids, valid = pad_captions([ids], self.tokenizer.pad_id)
        seed = int(np.random.default_rng([self.seed, *key, MASK_STREAM]).integers(2**63))
        generator = torch.Generator().manual_seed(seed)
        masked = mask_captions(ids, valid, self.masking, self.tokenizer, generator)
        captions = {"inputs": masked.inputs, "labels": ids, "valid": valid, "targets": masked.targets}
        return {**item, "signal": square_frames(item["signal"], self.frame_size), **captions}


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items -> {"frames": (B, T, 3, S, S) uint8, "inputs", "labels", "valid", "targets": (B, K, C), "names", "bad",
    "clips"}: word pieces as shown and as they were (int64), where there are any and which are asked for (bool).

    Where not one of the items could be read, no names and "bad" alone.
    """
    readable = [item for item in items if item["signal"] is not None]
    if not readable:
        return {"names": [], "bad": bad_items(items)}
    captions = {key: _pad([item[key][0] for item in readable]) for key in ("inputs", "labels", "valid", "targets")}
    return {
        "frames": torch.stack([item["signal"] for item in readable]),
        **captions,
        "names": [item["name"] for item in readable],
        "bad": bad_items(items),
        "clips": len(readable),
    }


def _pad(tensors: Sequence[Tensor]) -> Tensor:
    """(K, C) tensors of unlike sizes -> (B, K, C), filled up with zeros, which are not valid."""
    size = [max(tensor.shape[axis] for tensor in tensors) for axis in (0, 1)]
    padded = tensors[0].new_zeros(len(tensors), *size)
    for row, tensor in zip(padded, tensors, strict=True):
        row[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded
