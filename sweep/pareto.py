"""The Pareto front of a sweep: which configurations no other one beats in two columns of the table at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attacks.errors import InputError
from sweep import judged, status
from sweep.cells import holds_zero
from sweep.intervals import Floats
from sweep.judged import Compared
from sweep.settings import METHOD
from sweep.store import Store

Rows = list[dict[str, Any]]
ROUND_OFF = 1e-9


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
        for number, values, means in zip(models, compared.values, compared.sampled, strict=True)
        if x in values and y in values
    }
    about = {one["number"]: one for one in store.configurations()}
    rows = [_row(about[number], points, x, y) for number in points]
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
        differ = [not holds_zero(a - b, 0.95) for a, b in zip(self.means, other.means, strict=True)]
        return self.dominates(other) and any(differ)


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
