"""The cells of a table's rows, accuracies and their intervals, and their marks: which are the best, or within noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweep.averages import AVERAGE
from sweep.columns import Columns
from sweep.intervals import Draws, Floats, percentiles, wilson
from sweep.models import PRETRAINED, Cells, Model
from sweep.sheet import BEST, TIED

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

    @cached_property
    def _draws(self) -> Draws:
        seeds = [len(model.runs) for model in self.models]
        return Draws.of(self.models[0].images, seeds, self.extras.resamples, self.extras.seed)

    @cached_property
    def _each(self) -> list[dict[str, Floats]]:
        """Of each model, column -> its accuracy with each seed."""
        found = ({name: scores.mean(1) for name, scores in self.columns.scores(m).items()} for m in self.models)
        return [self.columns.with_worst(each) for each in found]

    @cached_property
    def _means(self) -> list[dict[str, float]]:
        """Of each model, column -> its accuracy; the worst attack is that of the means, not the mean of the worst."""
        found = ({name: np.asarray(each[name].mean()) for name in each} for each in self._each)
        return [{name: float(mean) for name, mean in self.columns.with_worst(means).items()} for means in found]

    def _sampled(self, k: int) -> Means:
        """Column -> resampled means, of what the table needs them of."""
        scores = self.columns.scores(self.models[k])
        if not (self.extras.marks or self.extras.intervals):
            scores = {name: held for name, held in scores.items() if name == AVERAGE}
        if not scores:
            return {}
        means = self._draws.means(k, np.stack(list(scores.values())))
        return self.columns.with_worst(dict(zip(scores, means, strict=True)))

    def _cell(self, k: int, column: str, sampled: Means) -> Cells:
        cell: Cells = {column: self._means[k].get(column)}
        if self.extras.intervals:
            cell |= _bounds(column, self._interval(k, column, sampled))
        if self.extras.spread:
            cell[f"{column}_std"] = self._std(k, column)
        return cell

    def _interval(self, k: int, column: str, sampled: Means) -> Interval:
        mean, images = self._means[k].get(column), self.models[k].images
        if mean is None:
            return None, None
        if len(self.models[k].runs) == 1 and column in self.columns.verdicts:
            return wilson(round(mean * images), images, self.extras.level)
        return percentiles(sampled[column], self.extras.level)

    def _std(self, k: int, column: str) -> float | None:
        each = self._each[k].get(column)
        return None if each is None or len(each) == 1 else float(each.std(ddof=1))

    def _average(self, k: int, sampled: Means) -> Cells:
        """The average, and what it gained over the pre-trained model of the same sweep."""
        mean, base = self._means[k].get(AVERAGE), self._bases.get(self.models[k].sweep)
        interval = (None, None) if mean is None else percentiles(sampled[AVERAGE], self.extras.level)
        row: Cells = {AVERAGE: mean} | _bounds(AVERAGE, interval) | {"std": self._std(k, AVERAGE)}
        if mean is None or base is None or base == k:
            return row | {"gain": None} | _bounds("gain", (None, None))
        gained = percentiles(sampled[AVERAGE] - self._kept[base][AVERAGE], self.extras.level)
        return row | {"gain": mean - self._means[base][AVERAGE]} | _bounds("gain", gained)

    @cached_property
    def _bases(self) -> dict[str, int]:
        """Sweep -> its pre-trained model."""
        found: dict[str, int] = {}
        for k, model in enumerate(self.models):
            if model.method == PRETRAINED and AVERAGE in self._means[k]:
                found.setdefault(model.sweep, k)
        return found

    @cached_property
    def _bests(self) -> dict[str, int]:
        """Column -> the first of the best, where there is a choice."""
        found = {}
        for column in (*self.columns.before, AVERAGE, *self.columns.after) if self.extras.marks else ():
            held = [k for k, means in enumerate(self._means) if column in means]
            if len(held) > 1:
                found[column] = max(held, key=lambda k: self._means[k][column])
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
        marks = {}
        for column, best in self._bests.items():
            if (mean := self._means[k].get(column)) is None:
                continue
            if mean >= self._means[best][column] - _ROUND_OFF:
                marks[column] = BEST
            elif holds_zero(self._kept[best][column] - sampled[column], self.extras.level):
                marks[column] = TIED
        return marks


def holds_zero(differences: Floats, level: float) -> bool:
    """Whether the interval of resampled differences holds 0."""
    low, high = percentiles(differences, level)
    return low <= _ROUND_OFF and high >= -_ROUND_OFF


def _bounds(name: str, interval: Interval) -> Cells:
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}
