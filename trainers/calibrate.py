"""Budgets that leave something to tell apart: epsilon moved until an attack leaves a share of the images robust.

Source: Eq. 11 of the CAS papers, epsilon <- (lambda + accuracy) * epsilon, which rests where the accuracy is
1 - lambda. Readings: lambda = 1 - the middle of the target; from `medium`, at most 10 rounds, epsilon kept within
[low / 4, 4 * high]; step sizes move with it, since else some attacks would never reach their budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

import attacks
from attacks.errors import InputError
from trainers.data import ImageSet
from trainers.evaluate import Protocol, evaluate

ROUNDS = 10


@dataclass(frozen=True)
class Target:
    """Between which accuracies a budget is to leave the model."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise InputError(f"expected a target LOW:HIGH with 0 <= LOW < HIGH <= 1, got {self.low:g}:{self.high:g}")

    @property
    def rest(self) -> float:
        """lambda of Eq. 11."""
        return 1 - (self.low + self.high) / 2


@dataclass(frozen=True)
class Calibrated:
    """What was tried: (epsilon, accuracy) of each round; the last is the result. `reached`: it is in the target."""

    attack: str
    rounds: tuple[tuple[float, float], ...]
    reached: bool
    row: dict[str, Any]


def calibrate(
    model: nn.Module,
    images: ImageSet,
    name: str,
    budget: Mapping[str, Any],
    *,
    dataset: str,
    target: Target,
    protocol: Protocol,
    seed: int,
    start: nn.Module | None = None,
    rounds: int = ROUNDS,
) -> Calibrated:
    """Eq. 11 for one attack. `budget`: its row, of which low, medium and high are used. Costs an evaluation a round.

    The result is the round that is in the target, else the one that came nearest to it.
    """
    numbers = {level: attacks.get(name, dataset, level, budget).epsilon for level in ("low", "medium", "high")}
    epsilon, tried = numbers["medium"], []
    for _ in range(rounds):
        attack = attacks.get(name, dataset, epsilon, budget)
        bound = attack if start is None else attack.bind(start)
        verdicts = list(evaluate(model, images, {name: bound}, protocol=protocol, seed=seed))
        accuracy = float(verdicts[1].robust.float().mean())
        tried.append((epsilon, accuracy))
        if target.low <= accuracy <= target.high:
            break
        moved = (target.rest + accuracy) * epsilon
        moved = min(max(moved, numbers["low"] / 4), 4 * numbers["high"], attack.max_epsilon)
        if moved == epsilon:
            break
        epsilon = moved
    nearest = min(tried, key=lambda one: max(target.low - one[1], one[1] - target.high))
    used = attacks.get(name, dataset, nearest[0], budget)
    row: dict[str, Any] = {"epsilon": round(used.epsilon, 6)}
    if (step_size := getattr(used, "step_size", None)) is not None:
        row["step_size"] = round(step_size, 8)
    return Calibrated(name, tuple(tried), target.low <= nearest[1] <= target.high, row)
