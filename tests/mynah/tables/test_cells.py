"""Which learning rate a cell takes, and its mean and deviation, from fabricated results."""

import math
import statistics

import pytest

from mynah.tables.cells import assess
from mynah.tables.metrics import Metric
from mynah.tables.plan import FAILED, FINISHED, OPEN, cells_of

RATES = [1e-4, 1e-3, 1e-2]
ACCURACY, EER = Metric("accuracy", "max"), Metric("eer", "min")


@pytest.fixture
def cell(table_of):
    """cell(...) -> the one cell of a table."""

    def make(**given):
        table = table_of(lrs=RATES, **given)
        return cells_of(table.config, table.folder)[0]

    return make


def state_of(cell, metric=ACCURACY):
    return assess(cell, metric, lambda run: run.outcome())


@pytest.mark.parametrize(("metric", "best"), [(ACCURACY, 1e-3), (EER, 1e-2)])
def test_dev_chooses_the_learning_rate_and_never_test(cell, fabricate, metric, best):
    one = cell()
    for lr, dev, test in zip(RATES, (0.5, 0.9, 0.2), (0.99, 0.4, 0.6), strict=True):
        fabricate(one.runs(lr, 1)[0], dev, test, metric.key)
    state = state_of(one, metric)
    assert (state.status, state.lr) == (FINISHED, best)
    assert state.mean == {1e-3: 0.4, 1e-2: 0.6}[best] and state.deviation is None
    assert state.edge is (best == 1e-2)


def test_the_first_of_equals_is_taken_and_nan_is_never_better(cell, fabricate):
    one = cell()
    for lr, dev in zip(RATES, (float("nan"), 0.3, 0.3), strict=True):
        fabricate(one.runs(lr, 1)[0], dev, 0.1)
    assert state_of(one).lr == 1e-3


def test_other_seeds_come_after_the_sweep_and_at_its_rate(cell, fabricate):
    one = cell(seeds=3)
    state = state_of(one)
    assert {(run.lr, run.seed) for run in state.pending} == {(lr, 1) for lr in RATES} and state.num_open == 5
    for lr, dev in zip(RATES, (0.1, 0.2, 0.3), strict=True):
        fabricate(one.runs(lr, 1)[0], dev, 0.61)
    state = state_of(one)
    assert {(run.lr, run.seed) for run in state.pending} == {(1e-2, 2), (1e-2, 3)} and state.num_open == 2
    tests = [0.61, 0.7, 0.76]
    for seed in (2, 3):
        fabricate(one.runs(1e-2, seed)[0], 0.0, tests[seed - 1])
    state = state_of(one)
    assert state.status == FINISHED and state.num_open == 0
    assert state.mean == pytest.approx(statistics.mean(tests)) and state.deviation == pytest.approx(
        statistics.stdev(tests)
    )


def test_a_sweep_of_all_seeds_takes_the_mean_of_dev(cell, fabricate):
    one = cell(seeds=2, sweep="all")
    assert len(state_of(one).pending) == 6
    for lr, devs in zip(RATES, ((0.9, 0.1), (0.6, 0.6), (0.2, 0.2)), strict=True):
        for seed, dev in zip((1, 2), devs, strict=True):
            fabricate(one.runs(lr, seed)[0], dev, 0.5)
    assert state_of(one).lr == 1e-3


def test_a_cell_that_varies_is_the_mean_over_the_values_and_deviates_over_seeds(cell, fabricate):
    one = cell(seeds=2, vary=["datarc.fold=1,2"])
    for lr in RATES:
        for run in one.runs(lr, 1):
            fabricate(run, {1e-3: 0.8}.get(lr, 0.3), 0.2 if run.varied.endswith("1") else 0.4)
    for run in one.runs(1e-3, 2):
        fabricate(run, 0.5, 0.5 if run.varied.endswith("1") else 0.9)
    state = state_of(one)
    assert state.values == pytest.approx([0.3, 0.7]) and state.mean == pytest.approx(0.5)
    assert state.deviation == pytest.approx(statistics.stdev([0.3, 0.7]))


def test_a_rate_that_failed_is_out_and_its_reason_is_kept(cell, fabricate):
    one = cell()
    fabricate(one.runs(1e-4, 1)[0], 0.1, 0.1)
    fabricate(one.runs(1e-3, 1)[0], 0.2, 0.2)
    fabricate(one.runs(1e-2, 1)[0], reason="the loss is nan")
    state = state_of(one)
    assert (state.status, state.lr, state.reasons) == (FINISHED, 1e-3, ["the loss is nan"])


def test_a_cell_without_any_result_has_failed_and_one_of_fewer_folds_has_none(cell, fabricate):
    one = cell()
    for lr in RATES:
        fabricate(one.runs(lr, 1)[0], reason="no such checkpoint")
    assert (state_of(one).status, state_of(one).reasons) == (FAILED, ["no such checkpoint"])
    folds = cell(tasks=["f:emotion"], vary=["f:datarc.fold=1,2"])
    for lr in RATES:
        first, second = folds.runs(lr, 1)
        fabricate(first, 0.5, 0.5)
        fabricate(second, reason="broken")
    assert state_of(folds).status == FAILED


def test_a_seed_that_failed_is_missing_in_the_mean(cell, fabricate):
    one = cell(seeds=3)
    for lr in RATES:
        fabricate(one.runs(lr, 1)[0], lr, 0.5)
    fabricate(one.runs(1e-2, 2)[0], 0.5, 0.7)
    assert state_of(one).status == OPEN
    fabricate(one.runs(1e-2, 3)[0], reason="too little memory")
    state = state_of(one)
    assert (state.status, state.values, state.reasons) == (FINISHED, [0.5, 0.7], ["too little memory"])


def test_without_learning_rates_no_dev_is_needed(table_of, fabricate):
    table = table_of()
    (one,) = cells_of(table.config, table.folder)
    (run,) = one.runs(None, 1)
    assert "optimizer.lr" not in " ".join(run.arguments())
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.json").write_text('{"test": {"accuracy": 0.25}, "finished": true}')
    assert state_of(one).mean == 0.25
    (run.folder / "metrics.json").write_text('{"test": {"accuracy": 0.')  # a file that was cut off
    assert state_of(one).status == OPEN


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_seed_whose_test_is_no_number_makes_mean_and_deviation_none_either(cell, fabricate, odd):
    one = cell(seeds=2)
    for lr, dev in zip(RATES, (0.3, 0.2, 0.1), strict=True):
        fabricate(one.runs(lr, 1)[0], dev, 0.5)
    fabricate(one.runs(1e-4, 2)[0], 0.3, odd)
    state = state_of(one)
    assert state.status == FINISHED and len(state.values) == 2
    assert not math.isfinite(state.mean) and math.isnan(state.deviation)
