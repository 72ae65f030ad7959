"""A filled table as text: laid out as printed for people, one record a cell for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sweep.papers import layouts
from sweep.papers.cells import EVALUATE, SEPARATOR, Cell
from sweep.papers.layouts import Layout
from sweep.papers.printed import Number

DATA = ("json", "csv")
"""The formats of records."""
DECIMALS = {"percent": 2, "accuracy_delta": 3, "seconds": 1, "steps": 2}
DOUBT, APART, OUTSIDE = "*", "~", "!"
"""Marks: the printed number is doubtful, the two are not comparable, their difference is outside the tolerance."""


def table(chosen: Layout, found: Sequence[Cell], tolerance: float | None = None) -> list[dict[str, str]]:
    """Rows and columns as printed; a cell reads `measured ± its std | printed (difference) marks`, `-` is not there."""
    cells = {_place(chosen, cell.number): cell for cell in found}
    columns = _heads(chosen, chosen.columns, found)
    made = []
    for row in _heads(chosen, chosen.rows, found):
        line = {" / ".join(chosen.rows): _label(row)}
        for column in columns:
            cell = cells.get((row, column))
            line[_distinct(_label(column), line)] = "" if cell is None else text(cell, tolerance)
        made.append(line)
    return made


def _distinct(name: str, taken: Iterable[str]) -> str:
    """A head that a paper prints twice."""
    return _distinct(f"{name} ", taken) if name in taken else name


def _place(chosen: Layout, number: Number) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(getattr(number, f) for f in chosen.rows), tuple(getattr(number, f) for f in chosen.columns)


def _heads(chosen: Layout, fields: Sequence[str], found: Sequence[Cell]) -> list[tuple[str, ...]]:
    if len(fields) == 1 and fields[0] in chosen.order:
        return [(name,) for name in chosen.order[fields[0]]]
    ordered = [list(dict.fromkeys(getattr(cell.number, name) for cell in found)) for name in fields]
    held = dict.fromkeys(tuple(getattr(cell.number, name) for name in fields) for cell in found)
    return sorted(held, key=lambda head: [names.index(part) for names, part in zip(ordered, head, strict=True)])


def _label(head: Sequence[str]) -> str:
    return ", ".join(part for part in head if part)


def text(cell: Cell, tolerance: float | None = None) -> str:
    """One cell for a person."""
    number, places = cell.number, DECIMALS[cell.number.unit]
    value = "-" if cell.value is None else f"{cell.value:.{places}f}"
    std = "" if cell.std is None else f" ± {cell.std:.{places}f}"
    if number.value is None:
        return value + std
    difference = "" if cell.difference is None else f" ({cell.difference:+.{places}f})"
    return f"{value}{std} | {number.printed}{difference}{_marks(cell, tolerance)}"


def _marks(cell: Cell, tolerance: float | None) -> str:
    marks = DOUBT * bool(cell.number.doubt) + APART * bool(cell.why_not) + OUTSIDE * is_outside(cell, tolerance)
    return f" {marks}" if marks else ""


def is_outside(cell: Cell, tolerance: float | None) -> bool:
    """Whether a comparable cell differs by more than so many points."""
    return tolerance is not None and cell.comparable and abs(cell.difference or 0.0) > tolerance


def caption(paper: str, table: str, chosen: Layout) -> str:
    return f"{paper}, {layouts.key(table)}: {chosen.caption}. Measured ± its std | printed (difference)"


def notes(chosen: Layout, found: Sequence[Cell], tolerance: float | None = None) -> list[str]:
    """What the marks mean here, how much is missing, and what would fill it."""
    made = [chosen.note] if chosen.note else []
    doubts: dict[str, list[str]] = {}
    for cell in found:
        if cell.number.doubt:
            doubts.setdefault(cell.number.doubt, []).append(where(cell))
    made += [f"{DOUBT} {'; '.join(names)}: {doubt}" for doubt, names in doubts.items()]
    apart = _counted(why for cell in found for why in cell.why_not.split(SEPARATOR))
    made += [f"{APART} {n} not comparable: {why}" for why, n in apart.items()]
    made += [f"{OUTSIDE} outside {tolerance:g} points: {where(cell)}" for cell in found if is_outside(cell, tolerance)]
    missing = sum(cell.value is None for cell in found)
    made += [f"- {missing} of {len(found)} cells are missing"] if missing else []
    return made + [f"to fill: {command}" for command in _commands(cell.fill for cell in found)]


def _commands(fills: Iterable[str]) -> list[str]:
    """Each once; those that judge several models alike are one."""
    judged: dict[str, list[str]] = {}
    others: list[str] = []
    for fill in dict.fromkeys(fills):
        if fill.startswith(EVALUATE):
            model, _, rest = fill.removeprefix(EVALUATE).partition(" ")
            judged.setdefault(rest, []).append(model)
        elif fill:
            others.append(fill)
    return [*others, *(f"{EVALUATE}{' '.join(models)} {rest}" for rest, models in judged.items())]


def _counted(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        if name:
            found[name] = found.get(name, 0) + 1
    return found


def where(cell: Cell) -> str:
    """A cell by name."""
    return ", ".join(part for part in (cell.number.dataset, cell.number.row, cell.number.metric) if part)


def catalogue() -> list[dict[str, Any]]:
    """Every table of the papers."""
    return [
        {
            "paper": paper,
            "table": table,
            "caption": chosen.caption,
            "data sets": ", ".join(_datasets(paper, table)) if not chosen.refused else "",
            "spaces": ", ".join(dict.fromkeys(run.space for run in chosen.runs))
            or ("tradeoff" if chosen.tradeoff else ""),
            "note": chosen.refused or chosen.note,
        }
        for paper in layouts.papers()
        for table, chosen in layouts.paper(paper).tables.items()
    ]


def _datasets(paper: str, table: str) -> list[str]:
    told = layouts.layout(paper, table).unprinted
    found = [number.dataset for number in layouts.printed(paper, table)] or [told.dataset if told else ""]
    return list(dict.fromkeys(found))
