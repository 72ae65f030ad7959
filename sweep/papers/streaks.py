"""How long one player leads: adaptive-budget's Table 5, from what the epochs of a training say of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MEAN = "mean"


def streaks(epochs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Player -> its longest streak, and `mean` of all streaks, through a whole training: the last streak of an epoch
    goes on in the next where the same player leads. Of `epochs` rows in order (trainers.inner.adaptive_budget.streaks);
    empty where they do not say who led."""
    told = [json.loads(row["domination"]) if row["domination"] else {} for row in epochs]
    if not told or not all("streaks" in one for one in told):
        return {}
    longest: dict[str, float] = {}
    leader, length, count = "", 0.0, 0.0
    for one in told:
        first, begun = _edge(one, "first.")
        last, left = _edge(one, "last.")
        joined = length + begun if first == leader else begun
        count += one["streaks"] - (first == leader)
        for name, most in _told(one, "longest.").items():
            longest[name] = max(longest.get(name, 0.0), most, joined if name == first else 0.0)
        leader, length = last, joined if one["streaks"] == 1 else left
    return longest | {MEAN: sum(one["mean_streak"] * one["streaks"] for one in told) / count}


def of(found: Mapping[str, float], names: Sequence[str]) -> float | None:
    """The streak of the first of these players that there is."""
    return next((found[name] for name in names if name in found), None)


def _told(one: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in one.items() if name.startswith(prefix)}


def _edge(one: Mapping[str, float], prefix: str) -> tuple[str, float]:
    return next(iter(_told(one, prefix).items()))
