"""Verification: error rates over thresholds, equal error rate, minimum of the detection cost."""

from dataclasses import dataclass

import numpy as np

P_TARGET = 0.01
"""The prior of VoxCeleb's minDCF; a miss and a false alarm cost 1 each."""
PAIRS_AT_ONCE = 65536  # of embeddings; bounds the memory


@dataclass(frozen=True)
class ErrorRates:
    """(T,) float64 each: a trial is accepted if its score is at least the threshold.

    thresholds: every distinct score, rising, then infinity. misses: the share of target trials that are rejected,
    from 0 to 1. false_alarms: the share of the others that are accepted, from 1 to 0.
    """

    thresholds: np.ndarray
    misses: np.ndarray
    false_alarms: np.ndarray


def error_rates(scores: np.ndarray, targets: np.ndarray) -> ErrorRates:
    """scores: (N,) finite; targets: (N,) bool. Raises ValueError without a target or without another trial."""
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets, dtype=bool)
    own, others = np.sort(scores[targets]), np.sort(scores[~targets])
    if not len(own) or not len(others):
        raise ValueError(f"{len(own)} target trials and {len(others)} others; both are needed")
    thresholds = np.append(np.unique(scores), np.inf)
    misses = np.searchsorted(own, thresholds, side="left") / len(own)
    false_alarms = (len(others) - np.searchsorted(others, thresholds, side="left")) / len(others)  # 1 - n/N rounds
    return ErrorRates(thresholds, misses, false_alarms)


def equal_error_rate(rates: ErrorRates) -> tuple[float, float]:
    """(the rate at which misses and false alarms are equal, its threshold).

    Between two thresholds the curve of the two rates is a straight line; the threshold lies midway between the two.
    """
    difference = rates.misses - rates.false_alarms  # from -1 to 1
    after = int(np.argmax(difference >= 0))
    before = after - 1
    step = -difference[before] / (difference[after] - difference[before])
    rate = rates.misses[before] + step * (rates.misses[after] - rates.misses[before])
    low, high = rates.thresholds[before], rates.thresholds[after]
    return float(rate), float((low + high) / 2 if np.isfinite(high) else low)


def min_detection_cost(rates: ErrorRates, p_target: float = P_TARGET) -> float:
    """The least cost over all thresholds, p_target * misses + (1 - p_target) * false_alarms (a miss and a false alarm
    cost 1 each), in units of what accepting all or none costs, whichever is less: at most 1 (NIST SRE, VoxSRC)."""
    costs = p_target * rates.misses + (1 - p_target) * rates.false_alarms
    return float(costs.min() / min(p_target, 1 - p_target))


def rates_at(scores: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[float, float]:
    """(share of target trials below the threshold, share of the others at or above it)."""
    accepted = np.asarray(scores) >= threshold
    targets = np.asarray(targets, dtype=bool)
    return float(1 - accepted[targets].mean()), float(accepted[~targets].mean())


def cosine_scores(embeddings: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """embeddings: (U, D), each of length 1; first, second: (N,) rows of them -> (N,) float32 cosines."""
    scores = np.empty(len(first), dtype=np.float32)
    for start in range(0, len(first), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        scores[part] = np.einsum("nd,nd->n", embeddings[first[part]], embeddings[second[part]])
    return scores
