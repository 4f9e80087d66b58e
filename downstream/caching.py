"""Which cache the features of a run have, and what the user is told of it."""

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch

from mynah.downstream.feature_cache import GIB, DiskCache, FeatureCache, MemoryCache
from mynah.downstream.feature_items import FeatureItems
from mynah.downstream.feature_key import feature_facts, feature_key
from mynah.downstream.feature_store import FeatureStore, bytes_of_folder, features_dir
from mynah.downstream.features import UpstreamFeatures
from mynah.downstream.interfaces import FeaturesConfig
from mynah.utility.experiments.folder import is_launched_process
from mynah.utility.storage import readable_size

log = logging.getLogger("mynah")

FLOAT32_BYTES = 4


def open_cache(
    features: UpstreamFeatures,
    config: FeaturesConfig,
    training: FeatureItems | None,
    others: Sequence[FeatureItems],
    *,
    precision: str = "32-true",
    origin: dict[str, str] | None = None,
) -> FeatureCache:
    """The cache that the settings ask for, of the features of these items; with fine-tuning, one that keeps nothing.

    precision: the trainer's. origin: where the upstream's weights come from, to be shown to people.
    """
    if features.fine_tune or config.cache == "off":
        return FeatureCache()
    if features.featurizer.reads_mean:
        kib = features.count_bytes([1], FLOAT32_BYTES) / 1024
        _say("features: the mean of each hidden state over time is kept, %.1f KiB an utterance", kib)
    splits = [*([training] if training else []), *others]
    to_disk = config.cache == "disk" and _can_outlive(splits)
    dtype = number_format(config, features.featurizer.reads_mean) if to_disk else torch.float32
    needed = features.count_bytes(chain.from_iterable(items.kept_lengths for items in splits), dtype.itemsize)
    if training is not None:
        _tell_of_crops(features, config, training, dtype)
    if not to_disk:
        room = int(config.cache_gib * GIB)
        if 0 < room < needed:
            told = (readable_size(needed), config.cache_gib, 100 * room / needed)
            _say(
                "features: all take about %s, of which features.cache_gib=%g keeps %.0f %%; the others are "
                "computed in every pass (features.cache=disk keeps them)",
                *told,
            )
        return MemoryCache(room, needed)
    facts = feature_facts(features, str(dtype).removeprefix("torch."), precision)
    folder = features_dir() / feature_key(facts)
    store = FeatureStore(folder, {**facts, "origin": origin}, int(config.disk_gib * GIB))
    _tell_of_room(store, needed)
    return DiskCache(store, dtype)


def number_format(config: FeaturesConfig, reads_mean: bool) -> torch.dtype:
    """Of features on disk."""
    if config.cache_dtype == "auto":
        return torch.float32 if reads_mean else torch.float16
    return {"float16": torch.float16, "float32": torch.float32}[config.cache_dtype]


def _can_outlive(splits: Sequence[FeatureItems]) -> bool:
    if all(items.has_sources for items in splits):
        return True
    _say(
        "features: kept in memory, as the task's datasets do not tell which files their signals come from (`peek`, "
        "downstream/README.md)"
    )
    return False


def _tell_of_room(store: FeatureStore, needed: int) -> None:
    there = bytes_of_folder(store.folder)
    room = store.make_room(needed - there)
    _say(
        "features: all take about %s on disk; %s are in %s, and there is room for %s",
        *(readable_size(needed), readable_size(there), store.folder, readable_size(room)),
    )
    if needed - there > room and not is_launched_process():
        log.warning(
            "features: about %.0f %% find no room and are computed in every pass; raise features.disk_gib (%g), or "
            "make room (`mynah features` shows what is kept, --empty removes it)",
            *(100 * (needed - there - room) / needed, store.limit / GIB),
        )


def _tell_of_crops(
    features: UpstreamFeatures, config: FeaturesConfig, items: FeatureItems, dtype: torch.dtype
) -> None:
    """What random crops cost, and what windows that come again do."""
    if not items.num_changing or not items.has_sources:
        return
    windows = config.windows or 4
    cropped = [length for length, fixed in zip(items.lengths, items.fixed, strict=True) if not fixed]
    size = readable_size(windows * features.count_bytes(cropped, dtype.itemsize))
    if config.windows:
        _say(
            "features: %d crops of each of %d longer utterances come again and again; they take %s and are "
            "computed in the first %d passes alone",
            *(windows, len(cropped), size, windows),
        )
    else:
        _say(
            "features: of %d of %d training items a new crop is drawn in every pass, so their features are computed "
            "every time; features.windows=%d would draw %d crops of each, take %s, and compute features in the "
            "first %d passes alone",
            *(len(cropped), len(items), windows, windows, size, windows),
        )


def _say(text: str, *values: Any) -> None:
    """Once for all processes of a run."""
    if not is_launched_process():
        log.info(text, *values)
