"""Schedules, phases, and what a recipe refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from attacks.errors import InputError
from trainers.recipe import SCHEDULES, Recipe


def rates(schedule: str, epochs: int, steps: int) -> list[float]:
    recipe = Recipe(lr=1.0, epochs=epochs, schedule=schedule)
    return [recipe.lr_at(epoch, step, steps) for epoch in range(epochs) for step in range(steps)]


def test_thirds() -> None:
    """t is 1/6, 2/6, ...: the second step ends where the second third begins."""
    assert rates("piecewise-ft", 3, 2) == pytest.approx([1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_one_cycle_is_up_at_40_percent() -> None:
    assert rates("one-cycle", 5, 2) == pytest.approx([0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])


def test_cosine_and_constant() -> None:
    assert rates("cosine", 2, 2) == pytest.approx([0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0])
    assert rates("constant", 2, 1) == [1, 1]


def test_robust_union_is_the_papers_over_50_epochs() -> None:
    """Up to 0.1 over 20 epochs, down to 0.005 over 20 more, to 0 over the last 10."""
    found = [0.1 * SCHEDULES["robust-union"](epoch / 50) for epoch in (5, 10, 20, 30, 40, 45, 50)]
    assert found == pytest.approx([0.025, 0.05, 0.1, 0.0525, 0.005, 0.0025, 0])


def test_one_cycle_is_that_of_robust_union_on_mnist() -> None:
    """Up to 1e-3 over 6 epochs, down to 0 over 9."""
    found = [1e-3 * SCHEDULES["one-cycle"](epoch / 15) for epoch in (3, 6, 9, 15)]
    assert found == pytest.approx([5e-4, 1e-3, 1e-3 * 2 / 3, 0])


@pytest.mark.parametrize(
    ("schedule", "epochs", "drops"),
    [
        ("static", 80, {70: 0.1}),
        ("multi-step-trades", 76, {75: 0.1}),
        ("multi-step-mart", 120, {75: 0.1, 90: 0.01, 100: 0.001}),
        ("multi-step-gairat", 120, {60: 0.1, 90: 0.01, 110: 0.005}),
        ("multi-step-vir", 115, {75: 0.1, 90: 0.01}),
    ],
)
@pytest.mark.parametrize("steps", [1, 7])
def test_multi_steps_drop_as_the_epochs_begin(schedule: str, epochs: int, drops: dict[int, float], steps: int) -> None:
    """Not a step sooner: an epoch has one learning rate."""
    expected = [min([factor for first, factor in drops.items() if epoch >= first] or [1.0]) for epoch in range(epochs)]
    assert rates(schedule, epochs, steps) == [rate for rate in expected for _ in range(steps)]


def test_multi_steps_are_shares_of_any_training() -> None:
    """Of 10 epochs: 6.25, 7.5 and 8.33 are done where MART drops."""
    assert rates("multi-step-mart", 10, 1) == [1.0] * 6 + [0.1, 0.01, 0.001, 0.001]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_factors_lie_between_0_and_1(schedule: str) -> None:
    assert all(0 <= rate <= 1 for rate in rates(schedule, 7, 11))


@pytest.mark.parametrize(
    ("share", "epochs", "warm"), [(0.5, 20, 10), (0.5, 1, 0), (0.5, 3, 2), (0, 4, 0), (1, 4, 4), (0.25, 4, 1)]
)
def test_the_warm_up_is_a_share_of_the_epochs(share: float, epochs: int, warm: int) -> None:
    recipe = Recipe(epochs=epochs, warm_up=share)
    assert [recipe.is_warm_up(epoch) for epoch in range(epochs)] == [True] * warm + [False] * (epochs - warm)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": -0.1},
        {"lr": math.nan},
        {"lr": math.inf},
        {"momentum": -1.0},
        {"weight_decay": -1.0},
        {"warm_up": 1.1},
        {"warm_up": math.nan},
        {"crop_padding": -1},
        {"bn": "both"},
        {"schedule": "piecewise"},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_an_unknown_schedule_is_told_its_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        Recipe(schedule="cosin")
