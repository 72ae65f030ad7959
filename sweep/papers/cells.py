"""A paper's table filled from sweeps: each printed cell with what was measured, or with the command that would."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from attacks.errors import InputError
from sweep import status
from sweep.papers import comparison, layouts, matrices
from sweep.papers.layouts import Find, Layout, Paper
from sweep.papers.measured import Measured, Model
from sweep.papers.metrics import Measure, Reader
from sweep.papers.printed import Number

SCALE = {"percent": 100.0}
"""From stored fractions to a paper's unit."""
SEPARATOR = "; "
"""Between the reasons why a cell is not comparable."""
EVALUATE = "python -m sweep evaluate "


@dataclass(frozen=True)
class Cell:
    """Measured and printed, in the printed number's unit. `why_not`: why they cannot be compared, empty where they can
    or where one of them is missing; `fill`: the command that would measure what is missing, or measure it as the paper
    did."""

    number: Number
    value: float | None = None
    std: float | None = None
    n: int | None = None
    seeds: int = 0
    why_not: str = ""
    fill: str = ""

    @property
    def difference(self) -> float | None:
        return None if self.value is None or self.number.value is None else self.value - self.number.value

    @property
    def comparable(self) -> bool:
        return self.difference is not None and not self.why_not

    def record(self) -> dict[str, Any]:
        told = {name: getattr(self.number, name) for name in ("row", *layouts.FIELDS, "unit")}
        measured = {"value": self.value, "std": self.std, "n": self.n, "seeds": self.seeds}
        paper = {"paper": self.number.value, "paper_std": self.number.std, "difference": self.difference}
        about = {"comparable": self.comparable, "why_not": self.why_not, "doubt": self.number.doubt, "fill": self.fill}
        return told | measured | paper | about


def cells(paper: str, table: str, measured: Measured) -> list[Cell]:
    """Every cell of a table, in the paper's order.

    A row is filled from the sweeps on its data set. Where none of the sweeps is on a data set of the table, as in a
    smoke run on digits, they fill its first part, the rows of its first data set, and nothing is comparable. Of several
    configurations that a row can be, the one from the paper's kind of starting model is taken, then the best on the
    validation split.
    """
    chosen, about = layouts.layout(paper, table), layouts.paper(paper)
    if chosen.kind not in ("cells", "matrix"):
        raise InputError(f"expected a table of cells, got {table} of {paper}, a figure of {chosen.kind}")
    printed = layouts.printed(paper, table)
    fill = reproduce(paper, table) if chosen.runs or chosen.tradeoff else ""
    if chosen.kind == "matrix":
        return matrices.filled(about, chosen, printed, measured, fill, Cell)
    filler = _Filler(about, chosen, measured, fill, _stands_in(about, printed, measured))
    return [filler.cell(number) for number in printed]


def reproduce(paper: str, table: str) -> str:
    return f"python -m sweep reproduce {paper} --table {layouts.key(table)}"


def _stands_in(paper: Paper, printed: Sequence[Number], measured: Measured) -> str | None:
    """The data set of the table whose place the sweeps take; None where they are on one of its own."""
    own = {name for number in printed for name in paper.datasets[number.dataset]}
    return None if own & set(measured.datasets) else printed[0].dataset


@dataclass(frozen=True)
class _Filler:
    paper: Paper
    layout: Layout
    measured: Measured
    fill: str
    stand_in: str | None

    def cell(self, number: Number) -> Cell:
        find = self.paper.find(self.layout, number)
        if self.stand_in not in (None, number.dataset):
            return Cell(number, fill=self.fill)
        own = self.measured.datasets if self.stand_in else self.paper.datasets[number.dataset]
        found = [(self._best(find, number, dataset), dataset) for dataset in own]
        models = [model for model, _ in found if model is not None]
        if self.stand_in is not None or len(own) == 1:
            return self._of(number, models[0]) if models else Cell(number, fill=self.fill)
        return self._of_several(number, models, [dataset for model, dataset in found if model is None])

    def _reader(self, number: Number) -> Reader:
        return Reader(self.paper, number.dataset, self.measured)

    def _of(self, number: Number, model: Model) -> Cell:
        measure = self._reader(number).read(model, number.metric)
        if measure is None:
            return Cell(number, fill=self._judge(model, self._reader(number).lacks(model, number.metric)))
        why = comparison.reasons(self.paper, number, model, measure, self.measured.split)
        scale = SCALE.get(number.unit, 1.0)
        std = None if measure.std is None else scale * measure.std
        made = partial(Cell, number, scale * measure.mean, std, measure.n, len(measure.values))
        if number.value is None or not why:
            return made()
        other = self._reader(number).lacks(model, number.metric, first=True)
        return made(why_not=SEPARATOR.join(why), fill=self._judge(model, other) if other else "")

    def _of_several(self, number: Number, models: Sequence[Model], lacking: Sequence[str]) -> Cell:
        """The mean over data sets, of those that there are."""
        read = [self._reader(number).read(model, number.metric) for model in models]
        found: list[Measure] = [measure for measure in read if measure is not None]
        if not found:
            return Cell(number, fill=self.fill)
        why = [f"{number.unit} are not compared", *(f"{name} is missing from the mean" for name in lacking)]
        mean, seeds = statistics.fmean(measure.mean for measure in found), min(len(measure.values) for measure in found)
        return Cell(number, mean, None, None, seeds, SEPARATOR.join(why), self.fill if lacking else "")

    def _best(self, find: Find, number: Number, dataset: str) -> Model | None:
        kind = self.paper.starts.get(number.pretrained, number.pretrained)

        def order(model: Model) -> tuple[Any, ...]:
            best = -model.value if model.value is not None else 0.0
            return comparison.start(model.init) != kind, find.method.index(model.method), best, model.number or 0

        fit = [model for model in self.measured.models if model.dataset == dataset and fits(find, model)]
        return min(fit, key=order, default=None)

    def _judge(self, model: Model, lacking: Sequence[str]) -> str:
        """The command for the attacks that a model did not meet; where it lacks no attack, the one for the table."""
        if not lacking or model.store is None:
            return self.fill
        told = self.layout.evaluation
        norms = {f"autoattack-{norm}" for norm in (told.attacks if told else ())}
        names = ",".join(dict.fromkeys(lacking))
        if told and set(lacking) <= norms:
            names = names.replace("autoattack-", "")
        protocol = told.protocol if told and set(lacking) <= norms else "full"
        return f"{status.command('evaluate', model.store, model.name)} --attacks {names} --protocol {protocol}"


def fits(find: Find, model: Model) -> bool:
    """Whether a model is what a printed row is of."""
    if model.method not in find.method or find.start not in (None, comparison.start(model.init)):
        return False
    return all(_equal(model.setting(address), value) for address, value in find.values.items())


def _equal(got: Any, wanted: Any) -> bool:
    numbers = isinstance(got, int | float) and isinstance(wanted, int | float)
    return abs(got - wanted) <= 1e-9 * max(1.0, abs(wanted)) if numbers else bool(got == wanted)
