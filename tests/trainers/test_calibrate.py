"""Eq. 11: epsilon <- (lambda + accuracy) * epsilon, on a model whose accuracy at each epsilon is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attacks
from attacks.errors import InputError
from trainers.calibrate import Calibrated, Target, calibrate
from trainers.data import ImageSet
from trainers.evaluate import protocol

GREYS = torch.arange(100) + 128
"""Grey level g is broken by linf once epsilon > (g - 127.5) / 255: at 0.1, the 25 darkest are."""


class Bright(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        z = 20 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([z, -z], 1)


def run(low: float, high: float, budget: dict[str, float] | None = None, rounds: int = 10) -> Calibrated:
    pixels = GREYS.to(torch.uint8)[:, None, None, None].expand(100, 3, 8, 8).contiguous()
    images = ImageSet(pixels, torch.zeros(100, dtype=torch.int64), torch.arange(100))
    levels = {"low": 0.05, "medium": 0.1, "high": 0.2} | (budget or {})
    return calibrate(
        Bright(),
        images,
        "pgd-linf",
        levels,
        dataset="cifar10",
        target=Target(low, high),
        protocol=protocol("quick", 3),
        seed=0,
        rounds=rounds,
    )


def accuracy(epsilon: float) -> float:
    return float((127.5 + 255 * epsilon <= GREYS).float().mean())


def test_each_round_follows_the_equation() -> None:
    """Target 20 to 60 %: lambda = 0.6. At 0.1, 75 % are left: epsilon becomes 1.35 times as large."""
    found = run(0.2, 0.6)
    assert found.rounds[0] == pytest.approx((0.1, 0.75))
    for (epsilon, left), (after, _) in zip(found.rounds, found.rounds[1:], strict=False):
        assert after == pytest.approx((0.6 + left) * epsilon)
    for epsilon, left in found.rounds:
        assert left == pytest.approx(accuracy(epsilon), abs=0.011)
    assert found.reached
    assert 0.2 <= found.rounds[-1][1] <= 0.6
    assert found.row["epsilon"] == pytest.approx(found.rounds[-1][0], abs=1e-6)


def test_the_step_moves_with_the_budget() -> None:
    found = run(0.2, 0.6)
    own = attacks.get("pgd-linf")
    assert found.row["step_size"] / found.row["epsilon"] == pytest.approx(0.003 / 0.03, rel=1e-3)
    used = attacks.get("pgd-linf", budget=found.row)
    assert (used.epsilon, used.num_steps) == (found.row["epsilon"], own.num_steps)


def test_a_budget_in_the_target_is_left_alone() -> None:
    assert run(0.7, 0.8).rounds == (pytest.approx((0.1, 0.75)),)


def test_it_stays_within_a_quarter_of_low_and_four_times_high() -> None:
    found = run(0.98, 0.99, {"low": 0.36, "medium": 0.4, "high": 0.45})
    assert [epsilon for epsilon, _ in found.rounds][-1] == pytest.approx(0.09)
    assert not found.reached
    assert len(found.rounds) < 10


def test_the_nearest_round_is_kept_where_none_is_in_the_target() -> None:
    found = run(0.001, 0.002, rounds=2)
    assert len(found.rounds) == 2
    assert not found.reached
    assert found.row["epsilon"] == pytest.approx(min(found.rounds, key=lambda one: one[1])[0], abs=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.6, 0.2), (-0.1, 0.5), (0.2, 1.1), (0.3, 0.3)])
def test_impossible_targets(low: float, high: float) -> None:
    with pytest.raises(InputError, match="expected a target LOW:HIGH"):
        Target(low, high)
