"""The Pareto front of a sweep: which configurations no other one beats in two columns of the table at once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from attacks.errors import InputError
from sweep import status
from sweep.analysis import judged
from sweep.analysis.judged import ROUND_OFF, Compared
from sweep.intervals import Floats
from sweep.settings import METHOD
from sweep.store import Store

Rows = list[dict[str, Any]]


def front(store: Store, split: str = "val", x: str = "clean", y: str = "average") -> Rows:
    """One row a configuration all of whose runs are COMPLETE, by falling x: number, method, settings, x, y, `on_front`,
    and the numbers of those that it `dominates` and is `dominated_by` beyond noise.

    `on_front` goes by the accuracies as they are: no configuration is at least as good in both columns and better in
    one. Domination beyond noise asks besides that in a column the paired 95 % interval of the difference, over
    resampled images and seeds, lies above 0. One that is off the front but dominated by none beyond noise is
    `within_noise` of it. Columns: judged.Compared. On val by default: who chooses by the test split has none left.
    """
    status.sound(store)
    if x == y:
        raise InputError(f"expected two different columns for a front, got {x} twice")
    models = judged.finished(store, split)
    if not models:
        raise InputError(f"no COMPLETE trial of {store.sweep_id} was judged on split {split!r}")
    compared = Compared.of(list(models.values()), (x, y))
    points = {
        number: _Point((values[x], values[y]), (means[x], means[y]))
        for number, values, means in zip(models, compared.values, compared.sampled((x, y)), strict=True)
        if x in values and y in values
    }
    won = {(a, b) for a, b in itertools.permutations(points, 2) if points[a].beyond_noise(points[b])}
    about = {one["number"]: one for one in store.configurations()}
    rows = [
        _about(about[number])
        | {x: point.values[0], y: point.values[1]}
        | _standing(number, not any(other.dominates(point) for other in points.values()), won)
        for number, point in points.items()
    ]
    return sorted(rows, key=lambda row: (-row[x], -row[y], row["number"]))


@dataclass(frozen=True)
class _Point:
    """A configuration's two accuracies, and their means over the same resamples of images and seeds."""

    values: tuple[float, float]
    means: tuple[Floats, Floats]

    def dominates(self, other: _Point) -> bool:
        ahead = [a - b for a, b in zip(self.values, other.values, strict=True)]
        return min(ahead) >= -ROUND_OFF and max(ahead) > ROUND_OFF

    def beyond_noise(self, other: _Point) -> bool:
        """Whether it dominates the other one, and is better in a column beyond noise."""
        pairs = zip(self.means, other.means, strict=True)
        return self.dominates(other) and any(judged.beyond_noise(mine - its) for mine, its in pairs)


def _about(one: Mapping[str, Any]) -> dict[str, Any]:
    settings = {address: value for address, value in json.loads(one["params"]).items() if address != METHOD}
    told = ", ".join(f"{address}={value}" for address, value in settings.items())
    return {"number": one["number"], "method": one["method"], "settings": told}


def _standing(number: int, on_front: bool, won: Collection[tuple[int, int]]) -> dict[str, Any]:
    """`won`: who dominates whom beyond noise."""
    beats = sorted(b for a, b in won if a == number)
    beaten_by = sorted(a for a, b in won if b == number)
    return {
        "on_front": on_front,
        "within_noise": not on_front and not beaten_by,
        "dominates": ", ".join(map(str, beats)),
        "dominated_by": ", ".join(map(str, beaten_by)),
    }
