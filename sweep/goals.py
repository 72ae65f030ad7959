"""What a search is for: the metrics that it maximises, the bounds that it keeps, and which configurations are the best
by both."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from attacks.errors import InputError

VALUE, CLEAN, LP, SEMANTIC, WORST = "value", "clean", "lp", "semantic", "worst"
"""Metrics beside the attacks' names: the standard one, (lp + semantic) / 2; clean accuracy; the average over the lp
norms; that over semantic and perceptual attacks; robust against every attack at once, image by image."""
Metrics = Mapping[str, float]
"""Name -> accuracy on the validation images, the mean over a configuration's seeds."""
Rows = list[dict[str, Any]]
_FORM = re.compile(r"\s*([\w.-]+)\s*(>=|<=)\s*([-+.\w]+)\s*")


@dataclass(frozen=True)
class Constraint:
    """`metric >= bound` or `metric <= bound`."""

    metric: str
    sign: str
    bound: float

    @classmethod
    def of(cls, text: str) -> Constraint:
        """InputError for what is none."""
        found = _FORM.fullmatch(text)
        bound = _number(found[3]) if found else math.nan
        if found is None or not 0 <= bound <= 1:
            raise InputError(f"expected METRIC >= NUMBER or <=, from 0 to 1, such as clean >= 0.8, got {text!r}")
        return cls(found[1], found[2], bound)

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound}"

    def violation(self, metrics: Metrics) -> float:
        """By how much it is violated; 0 or less where it is kept, but for round-off."""
        short = round(self.bound - metrics[self.metric], 9)
        return short if self.sign == ">=" else -short


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@dataclass(frozen=True)
class Goal:
    """Metrics to be maximised, and constraints as text."""

    objectives: Sequence[str] = (VALUE,)
    constraints: Sequence[str] = ()

    @cached_property
    def bounds(self) -> list[Constraint]:
        return [Constraint.of(text) for text in self.constraints]

    @property
    def metrics(self) -> list[str]:
        """All that it asks for."""
        return list(dict.fromkeys([*self.objectives, *(bound.metric for bound in self.bounds)]))

    def values(self, metrics: Metrics) -> list[float] | None:
        """Of the objectives; None where a metric that it asks for is missing."""
        if not metrics.keys() >= set(self.metrics):
            return None
        return [metrics[name] for name in self.objectives]

    def violations(self, metrics: Metrics) -> dict[str, float]:
        """Constraint -> by how much it is violated, of those whose metric is there."""
        return {str(bound): bound.violation(metrics) for bound in self.bounds if bound.metric in metrics}

    def ranked(self, found: Iterable[Mapping[str, Any]]) -> Rows:
        """Configurations, each with its `metrics`, in order, with `values` of the objectives, `violation`, the sum of
        what exceeds a bound, and `front`: whether it is the first or, of several objectives, one that none dominates.
        Those without a metric that is asked for are left out.

        The least violation goes first, then the front, then the first objective, of equals the second, and so on, and
        the lowest number. One that violates more than another is dominated by it.
        """
        rows = [{**one, **judged} for one in found if (judged := self._judged(one["metrics"])) is not None]
        rows.sort(key=lambda one: (one["violation"], *(-value for value in one["values"]), one["number"]))
        chosen = self._front([one for one in rows if one["violation"] == rows[0]["violation"]])
        rows = [{**one, "front": one["number"] in chosen} for one in rows]
        return sorted(rows, key=lambda one: (one["violation"], not one["front"]))

    def _judged(self, metrics: Metrics) -> dict[str, Any] | None:
        if (values := self.values(metrics)) is None:
            return None
        excess = sum(excess for excess in self.violations(metrics).values() if excess > 0)
        return {"values": values, "violation": excess}

    def _front(self, rows: Rows) -> set[int]:
        """The numbers of those that none dominates, of rows in which none comes before one that dominates it."""
        if len(self.objectives) == 1:
            return {one["number"] for one in rows[:1]}
        front: Rows = []
        for one in rows:
            if not any(dominates(other["values"], one["values"]) for other in front):
                front.append(one)
        return {one["number"] for one in front}


def dominates(values: Sequence[float], others: Sequence[float]) -> bool:
    """At least as good in all, and better in one."""
    return all(a >= b for a, b in zip(values, others, strict=True)) and tuple(values) != tuple(others)


def metrics(rows: Sequence[Mapping[str, Any]], confirm: bool = False) -> dict[str, float]:
    """The mean of each metric that all COMPLETE runs of a configuration have, the value among them; over those too that
    `confirm` it, where that is asked."""
    each = [{**_metrics(row), VALUE: row["value"]} for row in rows if confirm or not row.get("confirm")]
    return {name: sum(one[name] for one in each) / len(each) for name in each[0] if all(name in one for one in each)}


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Of a row as it is stored or as it is written; what was no finite number is left out."""
    held = row.get("metrics") or {}
    found: dict[str, float | None] = json.loads(held) if isinstance(held, str) else dict(held)
    return {name: number for name, number in found.items() if number is not None}
