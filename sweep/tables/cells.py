"""The cells of a table's rows, accuracies and their intervals, and their marks: which are the best, or within noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweep.intervals import Draws, Floats, holding_zero, percentiles, wilson
from sweep.render.sheet import BEST, TIED
from sweep.tables.averages import AVERAGE
from sweep.tables.columns import WORST_CASE, Columns
from sweep.tables.models import PRETRAINED, Cells, Model

_ROUND_OFF = 1e-9
Means = Mapping[str, Floats]
Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Extras:
    """What a table has beside accuracies: for each of them an interval, a standard deviation over seeds, a mark; and
    how it resamples."""

    intervals: bool = False
    spread: bool = False
    marks: bool = True
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Cast:
    """Models that compare. The resampled means of a model are made when they are asked for and not kept, but those of
    the best of each column and of the pre-trained models, with which others are compared."""

    columns: Columns
    models: Sequence[Model]
    extras: Extras

    def row(self, k: int) -> tuple[Cells, dict[str, str]]:
        """The cells of a model, and its marks."""
        model, sampled = self.models[k], self._sampled(k)
        row: Cells = {"number": model.number, "method": model.method, "weights": model.weights}
        row |= {"seeds": len(model.runs), "images": model.images}
        for column in self.columns.before:
            row |= self._cell(k, column, sampled)
        row |= self._average(k, sampled)
        for column in self.columns.after:
            row |= self._cell(k, column, sampled)
        return row, self._marks(k, sampled)

    def refusal(self) -> str | None:
        """Why a model that met every attack has no union of them all."""
        columns = self.columns
        whole = [k for k, model in enumerate(self.models) if columns.attacks and model.met(columns.attacks)]
        lacking = (self.models[k] for k in whole if self._mean(k, WORST_CASE) is None)
        return next(map(columns.refusal, lacking), None)

    @cached_property
    def _draws(self) -> Draws:
        seeds = [len(model.runs) for model in self.models]
        return Draws.of(self.models[0].images, seeds, self.extras.resamples, self.extras.seed)

    @cached_property
    def _accuracies(self) -> list[tuple[Means, Means]]:
        """Of each model, column -> its accuracy, and column -> that with each seed. The worst attack is that of the
        means, not the mean of each seed's."""
        scores = map(self.columns.scores, self.models)
        found = ([{name: held.mean(axis) for name, held in each.items()} for axis in (None, 1)] for each in scores)
        return [(self.columns.with_worst(means), self.columns.with_worst(each)) for means, each in found]

    def _mean(self, k: int, column: str) -> float | None:
        mean = self._accuracies[k][0].get(column)
        return None if mean is None else float(mean)

    def _sampled(self, k: int) -> Means:
        """Column -> resampled means, of what the table needs them of."""
        if self.extras.marks or self.extras.intervals:
            scores = self.columns.scores(self.models[k])
        else:
            averages = self.models[k].averages(self.columns.names, self.columns.formula)
            scores = {name: held for name, held in averages.items() if name == AVERAGE}
        if not scores:
            return {}
        means = self._draws.means(k, np.stack(list(scores.values())))
        return self.columns.with_worst(dict(zip(scores, means, strict=True)))

    def _cell(self, k: int, column: str, sampled: Means) -> Cells:
        cell: Cells = {column: self._mean(k, column)}
        if self.extras.intervals:
            cell |= _bounds(column, self._interval(k, column, sampled))
        if self.extras.spread:
            cell[f"{column}_std"] = self._std(k, column)
        return cell

    def _interval(self, k: int, column: str, sampled: Means) -> Interval:
        mean, images = self._mean(k, column), self.models[k].images
        if mean is None:
            return None, None
        if len(self.models[k].runs) == 1 and column in self.columns.verdicts:
            return wilson(round(mean * images), images, self.extras.level)
        return percentiles(sampled[column], self.extras.level)

    def _std(self, k: int, column: str) -> float | None:
        each = self._accuracies[k][1].get(column)
        return None if each is None or len(each) == 1 else float(each.std(ddof=1))

    def _average(self, k: int, sampled: Means) -> Cells:
        """The average, and what it gained over the pre-trained model of the same sweep."""
        mean, base = self._mean(k, AVERAGE), self._bases.get(self.models[k].sweep)
        interval = (None, None) if mean is None else percentiles(sampled[AVERAGE], self.extras.level)
        row: Cells = {AVERAGE: mean} | _bounds(AVERAGE, interval) | {"std": self._std(k, AVERAGE)}
        if mean is None or base is None or base == k:
            return row | {"gain": None} | _bounds("gain", (None, None))
        gained = percentiles(sampled[AVERAGE] - self._kept[base][AVERAGE], self.extras.level)
        return row | {"gain": mean - float(self._accuracies[base][0][AVERAGE])} | _bounds("gain", gained)

    @cached_property
    def _bases(self) -> dict[str, int]:
        """Sweep -> its pre-trained model."""
        found: dict[str, int] = {}
        for k, model in enumerate(self.models):
            if model.method == PRETRAINED and self._mean(k, AVERAGE) is not None:
                found.setdefault(model.sweep, k)
        return found

    @cached_property
    def _bests(self) -> dict[str, int]:
        """Column -> the first of the best, where not all are equal."""
        found = {}
        for column in (*self.columns.before, AVERAGE, *self.columns.after) if self.extras.marks else ():
            held = {k: float(means[column]) for k, (means, _) in enumerate(self._accuracies) if column in means}
            if held and max(held.values()) > min(held.values()) + _ROUND_OFF:
                found[column] = max(held, key=held.__getitem__)
        return found

    @cached_property
    def _kept(self) -> dict[int, Means]:
        """The resampled means of the models with which others are compared, of the columns in which they are."""
        wanted: dict[int, set[str]] = {k: {AVERAGE} for k in self._bases.values()}
        for column, k in self._bests.items():
            wanted.setdefault(k, set()).add(column)
        found = {k: self._sampled(k) for k in wanted}
        return {k: {column: found[k][column] for column in columns} for k, columns in wanted.items()}

    def _marks(self, k: int, sampled: Means) -> dict[str, str]:
        behind = {column: best for column, best in self._bests.items() if self._mean(k, column) is not None}
        marks = {column: BEST for column, best in behind.items() if self._behind(k, best, column) <= _ROUND_OFF}
        left = {column: best for column, best in behind.items() if column not in marks}
        if left:
            differences = np.stack([self._kept[best][column] - sampled[column] for column, best in left.items()])
            held = holding_zero(differences, self.extras.level)
            marks |= {column: TIED for column, tied in zip(left, held, strict=True) if tied}
        return marks

    def _behind(self, k: int, best: int, column: str) -> float:
        return float(self._accuracies[best][0][column] - self._accuracies[k][0][column])


def _bounds(name: str, interval: Interval) -> Cells:
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}
