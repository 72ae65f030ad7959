"""The trade-off matrices of the CAS papers, from a matrix that `tradeoff` measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sweep.papers.layouts import Layout, Paper
from sweep.papers.measured import Measured
from sweep.papers.printed import Number
from sweep.schema import TRADEOFF

if TYPE_CHECKING:
    from sweep.papers.cells import Cell

SUM, ROW_SUM = "sum", "row_sum_printed"
PREFIX = "trained_on="
Effects = dict[tuple[str, str], float]
WHY = "the paper's budgets of the semantic attacks are unpublished"


def numbers(layout: Layout, printed: Sequence[Number], names: Sequence[str]) -> list[Number]:
    """The printed cells; where a paper shows its matrix as an image, those of the attacks that are given."""
    told = layout.unprinted
    if told is None:
        return list(printed)
    shared = (told.dataset, told.model, told.pretrained)

    def row(trained: str, label: str) -> list[Number]:
        return [
            Number("", *shared, label, PREFIX + trained, metric, None, None, told.unit) for metric in (*names, ROW_SUM)
        ]

    return [number for name in names for number in row(name, f"AT:{name}")] + row(SUM, "column sum")


def filled(
    paper: Paper, layout: Layout, printed: Sequence[Number], measured: Measured, fill: str, make: Callable[..., Any]
) -> list[Cell]:
    """A cell is the change of an attack's robust accuracy, as a fraction, by training on one attack; the sums are over
    what is printed. The first matrix on a data set of the table counts, else the first one given."""
    document, effects = _matrix(paper, layout, printed, measured)
    names = list(dict.fromkeys(attack for attack, _ in effects)) or _default(layout)
    wanted = numbers(layout, printed, names)
    rows = _unique(number.variant.removeprefix(PREFIX) for number in wanted)
    columns = _unique(number.metric for number in wanted)
    why = [WHY]
    if document and document.get("dataset") not in paper.datasets.get(wanted[0].dataset, ()):
        why.insert(0, f"measured on {document.get('dataset')}, the paper on {wanted[0].dataset}")
    found = []
    for number in wanted:
        trained = number.variant.removeprefix(PREFIX)
        value = _total(effects, rows if trained == SUM else [trained], columns if _sums(number) else [number.metric])
        told = "" if value is None or number.value is None else "; ".join(why)
        found.append(
            make(number, value, seeds=int(value is not None), why_not=told, fill="" if value is not None else fill)
        )
    return found


def _sums(number: Number) -> bool:
    return number.metric == ROW_SUM


def _total(effects: Effects, trained: Sequence[str], attacks: Sequence[str]) -> float | None:
    wanted = [(one, attack) for one in trained for attack in attacks if one != SUM and attack != ROW_SUM]
    return sum(effects[pair] for pair in wanted) if all(pair in effects for pair in wanted) else None


def _matrix(
    paper: Paper, layout: Layout, printed: Sequence[Number], measured: Measured
) -> tuple[dict[str, Any], Effects]:
    stores = zip(measured.stores, measured.documents, strict=True)
    found = [(document, store) for store, document in stores if document.get("kind") == TRADEOFF]
    if not found:
        return {}, {}
    told = layout.unprinted.dataset if layout.unprinted else printed[0].dataset
    document, store = min(found, key=lambda one: one[0].get("dataset") not in paper.datasets.get(told, ()))
    rows = store.tradeoff().to_pylist()
    return document, {(row["trained_on"], row["attack"]): row["effect"] for row in rows}


def _default(layout: Layout) -> list[str]:
    from sweep.spaces import default_attacks

    told = layout.tradeoff.attacks if layout.tradeoff else "all"
    return default_attacks() if told == "all" else list(told)


def _unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
