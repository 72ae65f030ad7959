"""A printed metric of a measured model: seed by seed, and the stored rows that it was read from."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.errors import InputError
from sweep.bits import union
from sweep.papers.layouts import Metric, Paper
from sweep.papers.measured import Measured, Model, Row, robust
from trainers import domination

MEAN = "mean"


@dataclass(frozen=True)
class Measure:
    """`values`: one a seed, accuracies as fractions. `rows`: what they were read from; `n` images each."""

    values: tuple[float, ...]
    rows: tuple[Row, ...] = ()

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def n(self) -> int | None:
        return min((row["n"] for row in self.rows), default=None)


@dataclass(frozen=True)
class Reader:
    """Reads the metrics of a paper out of what was measured, on one of its data sets."""

    paper: Paper
    dataset: str
    measured: Measured

    def read(self, model: Model, metric: str) -> Measure | None:
        """None where the model lacks something for it; what it lacks: `lacks`."""
        told = self.paper.metrics[metric]
        if told.seconds or told.streak:
            return self._of_epochs(model, told)
        if told.union:
            return self._union(model, told)
        if parts := told.parts(self.dataset):
            return self._mean([self.read(model, part) for part in parts])
        return next((found for name in told.attacks if (found := _under(model, (name,)))), None)

    def lacks(self, model: Model, metric: str, first: bool = False) -> list[str]:
        """The attacks that the metric wants and that the model did not meet; with `first`, those that it met another
        for."""
        told = self.paper.metrics[metric]
        if told.attacks:
            met = any(_under(model, (name,)) for name in told.attacks[: 1 if first else None])
            return [] if met else [told.attacks[0]]
        return [name for part in told.parts(self.dataset) for name in self.lacks(model, part, first)]

    def _mean(self, parts: Sequence[Measure | None]) -> Measure | None:
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        values = zip(*(part.values for part in found), strict=True)
        return Measure(tuple(map(statistics.fmean, values)), tuple(row for part in found for row in part.rows))

    def _union(self, model: Model, told: Metric) -> Measure | None:
        """Exact, image by image; None, too, where the attacks met different images or budgets."""
        names = [self.paper.metrics[part].attacks[0] for part in told.union]
        found = [run.rows(names) for run in model.runs]
        rows = [each for each in found if each is not None]
        if not rows or len(rows) < len(found):
            return None
        try:
            counts = [union(each)[:2] for each in rows]
        except InputError:
            return None
        return Measure(tuple(k / n for k, n in counts), tuple(row for each in rows for row in each))

    def _of_epochs(self, model: Model, told: Metric) -> Measure | None:
        epochs = [self.measured.epochs.get(run.key, []) for run in model.runs]
        values = [_seconds(rows) if told.seconds else _streak(rows, told.streak) for rows in epochs]
        found = [value for value in values if value is not None]
        return Measure(tuple(found)) if found and len(found) == len(values) else None


def _seconds(epochs: Sequence[Mapping[str, Any]]) -> float | None:
    seconds = [row["seconds"] for row in epochs]
    return None if not seconds or None in seconds else sum(seconds)


def _streak(epochs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> float | None:
    """The longest streak through a training of the first of these players that there is, or the mean one."""
    found = domination.through([json.loads(row["domination"]) if row["domination"] else {} for row in epochs])
    known = {} if found is None else {**found.longest, MEAN: found.mean}
    return next((known[name] for name in names if name in known), None)


def _under(model: Model, names: Sequence[str]) -> Measure | None:
    found = [run.rows(names) for run in model.runs]
    rows = [each[0] for each in found if each is not None]
    return Measure(tuple(map(robust, rows)), tuple(rows)) if rows and len(rows) == len(found) else None
