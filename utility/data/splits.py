"""Split of a corpus into training and validation, by the hash of each item's name."""

import hashlib
import re
from collections.abc import Sequence


def validation_indices(names: Sequence[str], fraction: float, seed: int) -> set[int]:
    """The indices that are held out: about `fraction` of them, and at least one on each side if there are two.

    A name's side follows from the seed and itself alone. None is held out where fraction is 0 or there are fewer
    than two names.
    """
    if fraction <= 0 or len(names) < 2:
        return set()
    shares = [hash_fraction(f"{seed}/{name}") for name in names]
    validation_items = {index for index, share in enumerate(shares) if share < fraction}
    validation_items.add(shares.index(min(shares)))
    validation_items.discard(shares.index(max(shares)))
    return validation_items


def hash_fraction(text: str) -> float:
    """A number from 0 to 1 that the text alone decides, evenly spread over texts."""
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def name_percentage(name: str) -> float:
    """From 0 to 100: where Speech Commands puts a file by its speaker, the part of its name before "_nohash_".

    Warden 2018, sec. 7.1: below 10 is for validation, below 20 for testing, the rest for training.
    """
    speaker = re.sub(r"_nohash_.*$", "", name)
    return int(hashlib.sha1(speaker.encode(errors="surrogateescape")).hexdigest(), 16) % 2**27 * (100.0 / (2**27 - 1))
