"""Which cache the features of a run have, and what the user is told of it."""

import logging
from collections.abc import Sequence
from itertools import chain

from mynah.downstream.feature_cache import GIB, FeatureCache, MemoryCache
from mynah.downstream.feature_items import FeatureItems
from mynah.downstream.features import UpstreamFeatures
from mynah.downstream.interfaces import FeaturesConfig

log = logging.getLogger("mynah")

FLOAT32_BYTES = 4


def open_cache(features: UpstreamFeatures, config: FeaturesConfig, splits: Sequence[FeatureItems]) -> FeatureCache:
    """The cache that the settings ask for, of features of these items; with fine-tuning, one that keeps nothing."""
    if features.fine_tune or config.cache == "off":
        return FeatureCache()
    if features.featurizer.reads_mean:
        kib = features.count_bytes([1], FLOAT32_BYTES) / 1024
        log.info("features: the mean of each hidden state over time is kept, %.1f KiB an utterance", kib)
    needed = features.count_bytes(chain.from_iterable(items.kept_lengths for items in splits), FLOAT32_BYTES)
    return MemoryCache(int(config.cache_gib * GIB), needed)
