"""How a sweep fills a paper's tables: one YAML a paper, data only, validated here."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator

from attacks.errors import InputError, unknown
from sweep.papers.printed import FOLDER, Number, numbers
from sweep.settings import Count, Strict, flatten

FIELDS = ("dataset", "pretrained", "method", "variant", "metric")
"""What tells the cells of a table apart."""
Names = tuple[str, ...]


def _ratio(value: Any) -> Any:
    """8/255 is a number."""
    return float(Fraction(value)) if isinstance(value, str) and "/" in value else value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Ratio = Annotated[float, BeforeValidator(_ratio)]
Several = Annotated[Names, BeforeValidator(_several)]


class Metric(Strict):
    """Where a printed metric is found: under the first of `attacks` that a model met; as the `mean` of other metrics
    (`by_dataset`: of which, where a data set has its own), or their exact `union`; as the seconds of training; or as
    the longest streak of the first of these players, of `mean` the mean one."""

    attacks: Names = ()
    mean: Names = ()
    by_dataset: dict[str, Names] = Field(default_factory=dict)
    union: Names = ()
    seconds: bool = False
    streak: Names = ()

    def parts(self, dataset: str) -> Names:
        """The metrics that it is made of."""
        return self.union or self.by_dataset.get(dataset, self.mean)


class Find(Strict):
    """Which configuration of a sweep a printed row is: one of these methods (the names of alternatives), with these
    values at addresses, from this kind of starting model where only that will do."""

    method: Several
    start: str | None = None
    values: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """A name, several, or a mapping whose other keys are addresses."""
        if not isinstance(given, Mapping):
            return {"method": given}
        own = {key: value for key, value in given.items() if key in ("method", "start")}
        addresses = {key: value for key, value in given.items() if key not in own}
        return own | {"values": {address: _ratio(value) for address, value in flatten(addresses)}}


class Run(Strict):
    """A sweep that fills the rows of a data set (default: the table's first) when these settings are given."""

    space: str
    fills: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)


class Evaluation(Strict):
    """What the paper judged with and the space does not."""

    attacks: Names
    protocol: str


class Tradeoff(Strict):
    attacks: Names | Literal["all"]
    mode: str
    epochs: Count
    dataset: str
    init: str


class Unprinted(Strict):
    """The cells, or the series, of a figure that prints no numbers."""

    dataset: str = ""
    model: str = ""
    pretrained: str = ""
    unit: str = "percent"
    methods: Names = ()
    variants: Names = ("",)
    metrics: Names = ()


class Layout(Strict):
    """One table or figure. `rows` and `columns` name the fields whose values head them, in the order in which the
    numbers stand, or in that of `order`, where a value may come twice. `kind`: cells, or what a figure shows.
    `refused`: why there is nothing to fill."""

    caption: str
    kind: Literal["cells", "matrix", "epochs", "curves", "classes", "confusion", "svm"] = "cells"
    rows: Names = ("method",)
    columns: Names = ("metric",)
    order: dict[str, Names] = Field(default_factory=dict)
    printed: str = ""
    metrics: Names = ()
    finds: dict[str, Find] = Field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    tradeoff: Tradeoff | None = None
    evaluation: Evaluation | None = None
    scales: tuple[float, ...] = ()
    unprinted: Unprinted | None = None
    note: str = ""
    refused: str = ""


class Paper(Strict):
    """What the tables of a paper share: its words for data sets, models, starting models and metrics in ours."""

    datasets: dict[str, Several]
    models: dict[str, str]
    starts: dict[str, str]
    budgets: dict[str, dict[str, Ratio]]
    metrics: dict[str, Metric]
    finds: dict[str, Find]
    tables: dict[str, Layout]

    def find(self, layout: Layout, number: Number) -> Find:
        for told in (layout.finds, self.finds):
            for name in (number.row, number.variant, number.method):
                if name in told:
                    return told[name]
        raise KeyError(number.row)


def papers() -> list[str]:
    return sorted(one.name.removesuffix(".yaml") for one in FOLDER.iterdir() if one.name.endswith(".yaml"))


@cache
def paper(name: str) -> Paper:
    """The layouts of a paper; InputError for an unknown one."""
    if name not in (known := papers()):
        raise unknown("paper", name, known)
    return Paper.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def layout(name: str, table: str) -> Layout:
    """A table of a paper; InputError for an unknown one, and for one that has nothing to fill."""
    known = paper(name).tables
    if key(table) not in known:
        raise unknown(f"table of {name}", table, known)
    chosen = known[key(table)]
    if chosen.refused:
        raise InputError(f"expected a table of {name} with results, got {table}: {chosen.refused}")
    return chosen


def methods(name: str, table: str) -> frozenset[str]:
    """The methods of sweeps that a table can be filled from."""
    finds = {**paper(name).finds, **layout(name, table).finds}
    told = layout(name, table).unprinted
    return frozenset(method for find in finds.values() for method in find.method) | frozenset(
        told.methods if told else ()
    )


def key(table: str) -> str:
    """A table's key in the layouts: `6` or `figure-5`."""
    return table.lower().replace("table-", "").replace("table ", "").replace("figure ", "figure-")


def printed(name: str, table: str) -> list[Number]:
    """The cells of a table in the paper's order; those of a figure without numbers have no value."""
    chosen = layout(name, table)
    held = chosen.printed or key(table)
    found = [number for number in numbers(name) if number.table == held]
    if chosen.metrics:
        found = [number for number in found if number.metric in chosen.metrics]
    return found or _unprinted(chosen, key(table))


def _unprinted(chosen: Layout, table: str) -> list[Number]:
    told = chosen.unprinted or Unprinted()
    shared = (told.dataset, told.model, told.pretrained)
    return [
        Number(table, *shared, method, variant, metric, None, None, told.unit)
        for method in told.methods
        for variant in told.variants
        for metric in told.metrics
    ]
