"""Rows as a sheet of columns and cells, and cells as a person reads them: what every format starts from."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa

Rows = Sequence[Mapping[str, Any]]
Cells = list[list[Any]]
Marks = Sequence[Mapping[str, str]]
"""For each row: column -> BEST or TIED."""
BEST, TIED = "best", "tied"
SIGNS = {BEST: "*", TIED: "~"}
"""What a mark is without bold type: a sign after the number."""
DASH = "-"


@dataclass(frozen=True)
class Sheet:
    """A table to be written. Columns in `percent` are fractions that read as percent with one decimal; `marks` are row
    by row, None for a table that has none; `caption` and `notes` go where a format has a place for them. `upright`: its
    rows stay rows, however wide."""

    columns: list[str]
    cells: Cells
    percent: Collection[str] = ()
    marks: Marks | None = None
    caption: str = ""
    notes: Sequence[str] = ()
    upright: bool = False

    @property
    def texts(self) -> list[list[str]]:
        """The cells as a person reads them."""
        return [
            [_text(name, value, self.percent) for name, value in zip(self.columns, row, strict=True)]
            for row in self.cells
        ]

    @property
    def marked(self) -> list[list[str | None]]:
        """The mark of each cell."""
        rows: Marks = self.marks or [{}] * len(self.cells)
        return [[marks.get(name) for name in self.columns] for marks in rows]

    def told(self, best: str, tied: str) -> list[str]:
        """The notes, after what the marks are where there are any."""
        some = any(self.marks or ())
        return [*([f"{best}: best of its column; {tied}: within noise of it."] if some else ()), *self.notes]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers and nothing else."""
        held = [[row[i] for row in self.cells if row[i] is not None] for i in range(len(self.columns))]
        return [
            bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
            for values in held
        ]

    @property
    def with_marks(self) -> Sheet:
        """The marks as two more columns, the names of the columns in which a row is best or tied: for programs."""
        if self.marks is None:
            return self
        more = [[[name for name, mark in row.items() if mark == kind] for kind in SIGNS] for row in self.marks]
        cells = [[*row, *lists] for row, lists in zip(self.cells, more, strict=True)]
        return replace(self, columns=[*self.columns, *(f"{kind}_in" for kind in SIGNS)], cells=cells, marks=None)


def sheet(rows: Rows | pa.Table) -> Sheet:
    """Column names, made unique, and the cells row by row; a missing key is null."""
    if isinstance(rows, pa.Table):
        columns = [column.to_pylist() for column in rows.columns]
        return Sheet(_distinct(rows.column_names), [list(row) for row in zip(*columns, strict=True)])
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Sheet(names, [[row.get(name) for name in names] for row in rows])


def _distinct(names: Sequence[str]) -> list[str]:
    """SQL may give one name twice: the second becomes name_1, as DuckDB has it."""
    seen: list[str] = []
    for name in names:
        new, count = name, 0
        while new in seen:
            count += 1
            new = f"{name}_{count}"
        seen.append(new)
    return seen


def _text(name: str, value: Any, percent: Collection[str]) -> str:
    """On one line and free of control characters."""
    value = plain(value)
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{100 * value:.1f}" if name in percent else f"{value:.4g}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else str(value)
    return "".join(c if c.isprintable() else " " for c in text)


def plain(value: Any) -> Any:
    """A value as JSON has it: no NaN, no infinity, times in ISO 8601, bytes in hexadecimal."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)
