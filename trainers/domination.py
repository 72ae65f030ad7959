"""Which player dominates, of several attacks on a batch (adaptive-budget, Table 5): streaks of batches led by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

Names = Sequence[str]


def streaks(names: Names, led: Names) -> dict[str, float]:
    """Of the leaders of consecutive batches: `leads.A`, the share of batches; `longest.A` streak; `mean_streak` of all
    `streaks` (Table 5: of 1 1 2 inf inf the longest are 2, 1, 2, the mean is 5 / 3). Table 5 counts through a whole
    training: the lengths of the first and the last streak, `first.A` and `last.A`, join one epoch to the next."""
    runs = [(name, len(list(group))) for name, group in groupby(led)]
    found = {"mean_streak": len(led) / len(runs), "streaks": float(len(runs))}
    for name in names:
        found[f"leads.{name}"] = led.count(name) / len(led)
        found[f"longest.{name}"] = float(max((n for leader, n in runs if leader == name), default=0))
    return found | {f"first.{runs[0][0]}": float(runs[0][1]), f"last.{runs[-1][0]}": float(runs[-1][1])}


@dataclass(frozen=True)
class Training:
    """A column of Table 5: the longest streak of each player, and the mean of all `streaks`, in batches. `by_gradient`:
    whether the gradients told who led, as in the paper, at every batch."""

    longest: Mapping[str, int]
    mean: float
    streaks: int
    by_gradient: bool


def through(epochs: Sequence[Mapping[str, float]]) -> Training | None:
    """What `streaks` of each epoch of a training, in order, say of the whole; None where they do not tell who led."""
    if not epochs or any("streaks" not in row for row in epochs):
        return None
    longest: Counter[str] = Counter()
    count = batches = length = 0
    leader = ""
    for row in epochs:
        (first, head), (last, tail) = _end(row, "first."), _end(row, "last.")
        count += round(row["streaks"]) - (first == leader)
        batches += round(row["streaks"] * row["mean_streak"])
        head += length if first == leader else 0
        own = {name: round(n) for key, n in row.items() if (name := key.removeprefix("longest.")) != key}
        for name, n in {**own, first: max(own[first], head)}.items():
            longest[name] = max(longest[name], n)
        leader, length = last, head if row["streaks"] == 1 else tail
    return Training(dict(longest), batches / count, count, all(row.get("by_gradient") for row in epochs))


def _end(row: Mapping[str, float], which: str) -> tuple[str, int]:
    return next((key.removeprefix(which), round(n)) for key, n in row.items() if key.startswith(which))
