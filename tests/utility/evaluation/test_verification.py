"""Error rates of verification, against a sweep over all thresholds and against scikit-learn's curve."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from mynah.utility.evaluation.verification import (
    PAIRS_AT_ONCE,
    cosine_scores,
    equal_error_rate,
    error_rates,
    min_detection_cost,
    rates_at,
)


def draw(seed: int, count: int = 400, decimals: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping scores; few decimals give ties."""
    generator = np.random.default_rng(seed)
    targets = generator.random(count) < 0.3
    return np.round(generator.normal(size=count) + 1.5 * targets, decimals), targets


def sweep(scores, targets) -> list[tuple[float, float, float]]:
    """(threshold, misses, false alarms), trial by trial."""
    found = []
    for threshold in [*sorted(set(scores.tolist())), float("inf")]:
        missed = sum(1 for score, own in zip(scores, targets, strict=True) if own and score < threshold)
        alarms = sum(1 for score, own in zip(scores, targets, strict=True) if not own and score >= threshold)
        found.append((threshold, missed / sum(targets), alarms / sum(~targets)))
    return found


@pytest.mark.parametrize("decimals", [6, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_rates_are_those_of_a_sweep_over_all_thresholds(seed, decimals):
    scores, targets = draw(seed, decimals=decimals)
    rates = error_rates(scores, targets)
    assert np.array_equal(np.stack([rates.thresholds, rates.misses, rates.false_alarms], 1), sweep(scores, targets))


@pytest.mark.parametrize("decimals", [6, 1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_equal_error_rate_is_where_scikit_learns_curve_meets_the_diagonal(seed, decimals):
    scores, targets = draw(seed, decimals=decimals)
    false_alarms, hits, _ = roc_curve(targets, scores, drop_intermediate=False)
    grid = np.linspace(0, 1, 200001)
    misses = 1 - np.interp(grid, false_alarms, hits)
    expected = grid[np.argmin(np.abs(misses - grid))]
    rate, threshold = equal_error_rate(error_rates(scores, targets))
    assert rate == pytest.approx(expected, abs=1e-4)
    missed, alarms = rates_at(scores, targets, threshold)
    assert min(missed, alarms) - 1e-9 <= rate <= max(missed, alarms) + 1e-9
    if decimals == 6:
        assert abs(missed - alarms) <= 1 / min(targets.sum(), (~targets).sum()) + 1e-9


def test_the_least_cost_is_that_of_the_best_threshold():
    scores, targets = draw(3)
    for p_target in (0.01, 0.05, 0.7):
        costs = [p_target * missed + (1 - p_target) * alarms for _, missed, alarms in sweep(scores, targets)]
        expected = min(costs) / min(p_target, 1 - p_target)
        assert min_detection_cost(error_rates(scores, targets), p_target) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "targets", "rate", "cost"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.0, 0.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 1.0, 1.0),
        ([0.5, 0.5], [0, 1], 0.5, 1.0),
        ([0.1, 0.3, 0.2, 0.4], [0, 0, 1, 1], 0.5, 0.5),
    ],
)
def test_cases_known_by_heart(scores, targets, rate, cost):
    rates = error_rates(np.array(scores), np.array(targets))
    found, threshold = equal_error_rate(rates)
    assert found == pytest.approx(rate) and np.isfinite(threshold)
    assert min_detection_cost(rates) == pytest.approx(cost)


def test_the_threshold_is_not_a_trial_off_where_a_share_is_rounded():
    scores, targets = np.array([0.1, 0, 0.4, 0.7, 0.15, 0.4]), np.array([1, 0, 0, 1, 1, 0])
    assert equal_error_rate(error_rates(scores, targets)) == (pytest.approx(2 / 3), pytest.approx(0.275))


def test_the_threshold_lies_between_speakers_that_are_told_apart():
    _, threshold = equal_error_rate(error_rates(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])))
    assert threshold == pytest.approx(0.5)


@pytest.mark.parametrize("targets", [[True, True], [False, False]])
def test_trials_of_one_kind_have_no_error_rate(targets):
    with pytest.raises(ValueError, match="both are needed"):
        error_rates(np.array([0.1, 0.2]), np.array(targets))


def test_scores_are_cosines_whatever_the_number_of_pairs():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(7, 3)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = generator.integers(7, size=(2, PAIRS_AT_ONCE + 5))
    angles = np.arccos(np.clip(unit @ unit.T, -1, 1))
    assert np.allclose(cosine_scores(unit, first, second), np.cos(angles)[first, second], atol=1e-6)
