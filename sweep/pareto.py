"""The Pareto front of a sweep: which configurations no other one beats in two columns of the table at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attacks.errors import InputError
from sweep import judged, status
from sweep.intervals import Floats, percentiles, resample
from sweep.judged import Judged
from sweep.settings import METHOD
from sweep.store import Store

Rows = list[dict[str, Any]]


def front(store: Store, split: str = "val", x: str = "clean", y: str = "average") -> Rows:
    """One row a configuration all of whose runs are COMPLETE, by falling x: number, method, settings, x, y, `on_front`,
    and the numbers of those that it `dominates` and is `dominated_by` beyond noise.

    `on_front` goes by the accuracies as they are: no configuration is at least as good in both columns and better in
    one. Domination beyond noise asks besides that in a column the paired 95 % interval of the difference, over
    resampled images and seeds, lies above 0. One that is off the front but dominated by none beyond noise is
    `within_noise` of it. Columns: judged.Judged.scores. On val by default: who chooses by the test split has none left.
    """
    status.sound(store)
    if x == y:
        raise InputError(f"expected two different columns for a front, got {x} twice")
    configurations = store.configurations()
    found = judged.verdicts(store, split)
    judged.expect_results(store, split, found)
    models = {one["number"]: model for one in configurations if (model := judged.of(found, one["runs"])) is not None}
    if not models:
        raise InputError(f"no COMPLETE trial of {store.sweep_id} was judged on split {split!r}")
    for column in (x, y):
        judged.expect_column(column, models.values())
    points = _points(models, x, y)
    rows = [_row(one, points, x, y) for one in configurations if one["number"] in points]
    return sorted(rows, key=lambda row: (-row[x], -row[y], row["number"]))


@dataclass(frozen=True)
class _Point:
    """A configuration's two accuracies, and their means over the same resamples of images and seeds."""

    values: tuple[float, float]
    means: tuple[Floats, Floats]

    def dominates(self, other: _Point) -> bool:
        return self.values != other.values and all(a >= b for a, b in zip(self.values, other.values, strict=True))

    def beyond_noise(self, other: _Point) -> bool:
        """Whether it dominates the other one, and is better in a column beyond noise."""
        if not self.dominates(other):
            return False
        return any(percentiles(a - b)[0] > 0 for a, b in zip(self.means, other.means, strict=True))


def _points(models: Mapping[int, Judged], x: str, y: str) -> dict[int, _Point]:
    """Number -> point, of the models that have both columns."""
    scores = {number: (model.scores(x), model.scores(y)) for number, model in models.items()}
    whole = {number: (a, b) for number, (a, b) in scores.items() if a is not None and b is not None}
    _expect_comparable([models[number] for number in whole])
    means = resample([one for pair in whole.values() for one in pair])
    return {
        number: _Point((float(a.mean()), float(b.mean())), (means[2 * k], means[2 * k + 1]))
        for k, (number, (a, b)) in enumerate(whole.items())
    }


def _expect_comparable(models: list[Judged]) -> None:
    runs = [run for model in models for run in model.runs]
    for name in dict.fromkeys(name for run in runs for name in run):
        judged.expect_same([run[name] for run in runs if name in run])


def _row(one: Mapping[str, Any], points: Mapping[int, _Point], x: str, y: str) -> dict[str, Any]:
    mine, number = points[one["number"]], one["number"]
    on_front = not any(other.dominates(mine) for other in points.values())
    beaten_by = [other for other, point in points.items() if point.beyond_noise(mine)]
    beats = [other for other, point in points.items() if mine.beyond_noise(point)]
    settings = {address: value for address, value in json.loads(one["params"]).items() if address != METHOD}
    return {
        "number": number,
        "method": one["method"],
        "settings": ", ".join(f"{address}={value}" for address, value in settings.items()),
        x: mine.values[0],
        y: mine.values[1],
        "on_front": on_front,
        "within_noise": not on_front and not beaten_by,
        "dominates": ", ".join(map(str, sorted(beats))),
        "dominated_by": ", ".join(map(str, sorted(beaten_by))),
    }
