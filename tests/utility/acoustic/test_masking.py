"""Mask plans: how much is hidden, in which shapes, and what stands in its place, against loops and statistics."""

import numpy as np
import pytest
import torch

from mynah.utility.acoustic.masking import ZEROED, MaskingConfig, MaskPlan, batch_mask_plans, draw_mask_plan
from mynah.utility.configuration.problems import validate


def draw(num_positions: int, seed: int = 0, num_bins: int = 10, **fields) -> MaskPlan:
    return draw_mask_plan(num_positions, num_bins, MaskingConfig(**fields), np.random.default_rng(seed))


def runs(target: torch.Tensor) -> list[int]:
    """Lengths of the stretches of consecutive masked positions."""
    lengths, current = [], 0
    for masked in [*target.tolist(), False]:
        if masked:
            current += 1
        elif current:
            lengths.append(current)
            current = 0
    return lengths


@pytest.mark.parametrize("num_positions", [1, 2, 3, 7, 20, 33, 100, 333])
@pytest.mark.parametrize("proportion", [0.15, 0.5, 0.999])
def test_single_positions_come_as_near_to_the_proportion_as_can_be(num_positions, proportion):
    for seed in range(20):
        plan = draw(num_positions, seed, mask_proportion=proportion)
        assert plan.target.sum() == max(1, round(num_positions * proportion))
        assert plan.target.shape == plan.source.shape == (num_positions,)
        assert (plan.target.dtype, plan.source.dtype) == (torch.bool, torch.int64)


def test_every_position_is_as_likely_to_be_masked():
    rate = torch.stack([draw(20, seed, mask_proportion=0.15).target for seed in range(4000)]).float().mean(0)
    assert (rate - 0.15).abs().max() < 4 * (0.15 * 0.85 / 4000) ** 0.5


def test_aalbert_zeroes_what_it_masks_and_nothing_else():
    plan = draw(100)
    assert torch.equal(plan.zeroed, plan.target)
    kept = ~plan.target
    assert torch.equal(plan.source[kept], torch.arange(100)[kept])
    assert plan.band[0] == plan.band[1]


@pytest.mark.parametrize("span", [2, 5, 7])
def test_spans_are_whole_and_on_a_grid(span):
    offsets = set()
    for seed in range(200):
        plan = draw(100, seed, mask_proportion=0.3, mask_consecutive_min=span, mask_consecutive_max=span)
        assert plan.target.sum() == round(100 * 0.3 / span) * span
        assert all(length % span == 0 for length in runs(plan.target))
        offsets.add(int(plan.target.nonzero()[0, 0]) % span)
    assert offsets == set(range(100 % span + 1))  # a grid that moves, as far as it can


def test_the_length_of_spans_is_drawn_once_an_utterance_between_its_bounds():
    seen = set()
    for seed in range(200):
        # So low a proportion that there is one span, whose length can be seen.
        plan = draw(100, seed, mask_proportion=0.01, mask_consecutive_min=3, mask_consecutive_max=6)
        (length,) = runs(plan.target)
        seen.add(length)
    assert seen == {3, 4, 5, 6}


def test_overlapping_spans_start_anywhere():
    starts, merged = set(), False
    for seed in range(300):
        plan = draw(
            40, seed, mask_proportion=0.5, mask_consecutive_min=4, mask_consecutive_max=4, mask_allow_overlap=True
        )
        lengths = runs(plan.target)
        assert min(lengths) >= 4
        merged |= any(length % 4 for length in lengths)
        starts.add(int(plan.target.nonzero()[0, 0]))
    assert merged
    assert {0, 1, 2, 3} <= starts


@pytest.mark.parametrize("num_positions", [100, 150, 750])
@pytest.mark.parametrize("proportion", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("span", [2, 5, 10])
def test_overlapping_spans_cover_the_proportion_on_average(num_positions, proportion, span):
    fields = {"mask_proportion": proportion, "mask_consecutive_min": span, "mask_consecutive_max": span}
    covered = [
        draw(num_positions, seed, mask_allow_overlap=True, **fields).target.float().mean() for seed in range(60)
    ]
    # A span more or less, and the ends, which fewer spans reach.
    assert abs(torch.stack(covered).mean() - proportion) < 0.01 + 0.8 * span / num_positions


@pytest.mark.parametrize("overlap", [False, True])
def test_a_span_longer_than_the_utterance_is_cut_to_it(overlap):
    plan = draw(4, mask_consecutive_min=9, mask_consecutive_max=9, mask_allow_overlap=overlap)
    assert plan.target.all()


EIGHTY_TEN_TEN = {"mask_proportion": 0.5, "zero_probability": 0.8, "replace_probability": 0.1}


def kinds(plan: MaskPlan) -> list[str]:
    """What stands in each masked position; a replacement that happens to be the position itself counts as kept."""
    masked = plan.target.nonzero()[:, 0]
    return [
        "zero" if source == ZEROED else "keep" if source == position else "replace"
        for position, source in zip(masked.tolist(), plan.source[masked].tolist(), strict=True)
    ]


def test_the_80_10_10_dice_fall_once_a_position():
    found = [kind for seed in range(50) for kind in kinds(draw(400, seed, rule="position", **EIGHTY_TEN_TEN))]
    assert len(found) == 50 * 200
    for kind, rate in {"zero": 0.8, "replace": 0.1 * 399 / 400, "keep": 0.1 + 0.1 / 400}.items():
        deviation = (rate * (1 - rate) / len(found)) ** 0.5
        assert abs(found.count(kind) / len(found) - rate) < 4 * deviation, kind


def test_the_80_10_10_dice_fall_once_an_utterance():
    found = []
    for seed in range(1500):
        plan = draw(60, seed, rule="utterance", **EIGHTY_TEN_TEN)
        present = set(kinds(plan))
        assert present in ({"zero"}, {"keep"}) or "zero" not in present
        found.append("replace" if "replace" in present else present.pop())
    for kind, rate in {"zero": 0.8, "replace": 0.1, "keep": 0.1}.items():
        deviation = (rate * (1 - rate) / len(found)) ** 0.5
        assert abs(found.count(kind) / len(found) - rate) < 4 * deviation, kind


def test_replacements_come_from_all_over_the_utterance_and_leave_the_rest_alone():
    fields = {"mask_proportion": 0.5, "zero_probability": 0.0, "replace_probability": 1.0}
    seen = set()
    for seed in range(100):
        plan = draw(12, seed, **fields)
        assert torch.equal(plan.source[~plan.target], torch.arange(12)[~plan.target])
        seen |= set(plan.source[plan.target].tolist())
    assert seen == set(range(12))


def test_bands_of_frequency_are_up_to_the_width_given_and_anywhere():
    widths, firsts, lasts = [], set(), set()
    for seed in range(3000):
        plan = draw(6, seed, num_bins=9, mask_proportion=0.0, max_frequency_bins=4)
        first, end = plan.band.tolist()
        assert 0 <= first <= end <= 9
        widths.append(end - first)
        assert plan.target.all() if end > first else not plan.target.any()
        assert not plan.zeroed.any()
        if end - first == 2:
            firsts.add(first)
            lasts.add(end)
    for width in range(5):
        assert abs(widths.count(width) / 3000 - 0.2) < 4 * (0.2 * 0.8 / 3000) ** 0.5
    assert firsts == set(range(8))
    assert lasts == set(range(2, 10))


def test_a_band_is_never_wider_than_the_input():
    assert max(int(draw(5, seed, num_bins=3, max_frequency_bins=50).band[1]) for seed in range(200)) == 3


def test_a_plan_is_a_function_of_the_generator_alone():
    fields = {**EIGHTY_TEN_TEN, "rule": "position", "mask_consecutive_max": 4, "max_frequency_bins": 5}
    once, again, other = draw(90, 3, **fields), draw(90, 3, **fields), draw(90, 4, **fields)
    for part in ("target", "source", "band"):
        assert torch.equal(getattr(once, part), getattr(again, part))
    assert not torch.equal(once.target, other.target)


def test_what_is_shown_equals_a_loop_over_positions_and_bins():
    fields = {**EIGHTY_TEN_TEN, "zero_probability": 0.4, "replace_probability": 0.4, "max_frequency_bins": 4}
    lengths = [11, 4, 7, 1]
    plans = [draw(length, seed, num_bins=6, rule="position", **fields) for seed, length in enumerate(lengths)]
    plan = batch_mask_plans(plans)
    x = torch.randn(4, 11, 3, 6, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    shown = plan.show(x)
    assert torch.equal(x, before)
    for row, length in enumerate(lengths):
        first, end = plans[row].band.tolist()
        for position in range(11):
            for frame in range(3):
                for one_bin in range(6):
                    source = plans[row].source[position].item() if position < length else ZEROED
                    hidden = source == ZEROED or first <= one_bin < end
                    expected = 0.0 if hidden else x[row, source, frame, one_bin]
                    assert shown[row, position, frame, one_bin] == expected
    assert (shown == 0).any()
    assert (shown != 0).any()
    sources = torch.cat([one.source[one.target] for one in plans])
    assert (sources == ZEROED).any()


def test_a_batch_of_plans_is_its_plans_and_padding_that_is_no_target():
    plans = [draw(length, length, mask_proportion=0.5) for length in (9, 3, 6)]
    batch = batch_mask_plans(plans)
    assert batch.target.shape == batch.source.shape == (3, 9)
    for row, plan in enumerate(plans):
        count = len(plan.target)
        assert torch.equal(batch.target[row, :count], plan.target)
        assert torch.equal(batch.source[row, :count], plan.source)
        assert torch.equal(batch.band[row], plan.band)
        assert not batch.target[row, count:].any()
        assert batch.zeroed[row, count:].all()


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"mask_proportion": 1.5}, "mask_proportion"),
        ({"mask_proportion": 0.0}, "mask_proportion"),
        ({"mask_consecutive_min": 0}, "mask_consecutive_min"),
        ({"mask_consecutive_min": 3, "mask_consecutive_max": 2}, "mask_consecutive_min"),
        ({"zero_probability": -0.1}, "zero_probability"),
        ({"zero_probability": 0.8, "replace_probability": 0.3}, "replace_probability"),
        ({"rule": "frame"}, "rule"),
        ({"max_frequency_bins": -1}, "max_frequency_bins"),
    ],
)
def test_impossible_masking_is_named(fields, key):
    assert [found for found, _ in validate(MaskingConfig, fields)[1]] == [key]


def test_the_recipes_are_possible():
    for recipe in (
        {},
        {"mask_proportion": 0.0, "max_frequency_bins": 8},
        {"zero_probability": 0.8, "replace_probability": 0.1, "mask_consecutive_max": 7},
    ):
        assert not validate(MaskingConfig, recipe)[1]


def test_a_plan_knows_its_masked_positions_and_whether_something_is_padding():
    config = MaskingConfig(mask_proportion=0.3, mask_consecutive_max=4)
    plans = [draw_mask_plan(count, 4, config, np.random.default_rng(count)) for count in (9, 20, 20)]
    batch, equal = batch_mask_plans(plans), batch_mask_plans(plans[1:])
    values = torch.randn(3, 20, 2)
    assert torch.equal(values.flatten(0, 1)[batch.chosen], values[batch.target])
    assert (batch.whole, equal.whole) == (False, True)
    moved = equal.to(torch.device("cpu"))
    assert torch.equal(moved.chosen, equal.chosen) and moved.whole
