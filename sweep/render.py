"""Rows to text: a table for a terminal, or json, csv, md for the next program. NaN and null are null, or a dash."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime
from typing import IO, Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attacks.errors import unknown

Rows = Sequence[Mapping[str, Any]]
Cells = list[list[Any]]
_DASH = "-"


def show(
    rows: Rows | pa.Table, format: str = "table", *, percent: Collection[str] = (), file: IO[str] | None = None
) -> None:
    """Writes the rows in a format (see FORMATS) to the file, by default stdout.

    Columns named in `percent` are fractions: they read as percent with one decimal in table and md, and stay fractions
    in json and csv. A table that is wider than the terminal, of few rows, is turned on its side.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    columns, cells = _columns(rows)
    out = file or sys.stdout
    FORMATS[format](columns, cells, percent, out)


def _columns(rows: Rows | pa.Table) -> tuple[list[str], Cells]:
    """Column names, made unique, and the cells row by row; a missing key is null."""
    if isinstance(rows, pa.Table):
        columns = [column.to_pylist() for column in rows.columns]
        return _distinct(rows.column_names), [list(row) for row in zip(*columns, strict=True)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[row.get(name) for name in names] for row in rows]


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


def _json(columns: list[str], cells: Cells, percent: Collection[str], out: IO[str]) -> None:
    rows = [dict(zip(columns, map(_plain, row), strict=True)) for row in cells]
    out.write(json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _csv(columns: list[str], cells: Cells, percent: Collection[str], out: IO[str]) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_compact(_plain(value)) for value in row] for row in cells)


def _compact(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else value


def _md(columns: list[str], cells: Cells, percent: Collection[str], out: IO[str]) -> None:
    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |\n"

    out.write(line(columns))
    out.write(line(["---:" if right else "---" for right in _numeric(columns, cells)]))
    for row in cells:
        out.write(line([_read(name, value, percent) for name, value in zip(columns, row, strict=True)]))


def _table(columns: list[str], cells: Cells, percent: Collection[str], out: IO[str]) -> None:
    texts = [[_read(name, value, percent) for name, value in zip(columns, row, strict=True)] for row in cells]
    right = _numeric(columns, cells)
    terminal = bool(getattr(out, "isatty", lambda: False)())
    width = shutil.get_terminal_size().columns if terminal else sys.maxsize
    if 0 < len(cells) <= 8 and _width(columns, texts) > (width if terminal else 120):
        columns, texts = [columns[0], *(row[0] for row in texts)], _turned(columns, texts)
        right = [False, *[True] * len(cells)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, numeric in zip(columns, right, strict=True):
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=not terminal)
    for row in texts:
        table.add_row(*map(Text, row))
    made = io.StringIO()
    Console(file=made, width=min(width, 100_000), force_terminal=terminal, legacy_windows=False).print(table)
    out.write("".join(line.rstrip() + "\n" for line in made.getvalue().splitlines()))


def _turned(columns: list[str], texts: list[list[str]]) -> list[list[str]]:
    """A line per column but the first, whose cells are the heads."""
    return [[name, *(row[i] for row in texts)] for i, name in enumerate(columns) if i]


def _width(columns: list[str], texts: list[list[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(columns, *texts, strict=True))


def _numeric(columns: list[str], cells: Cells) -> list[bool]:
    held = [[row[i] for row in cells if row[i] is not None] for i in range(len(columns))]
    return [
        bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) for values in held
    ]


def _read(name: str, value: Any, percent: Collection[str]) -> str:
    """A cell as a person reads it, on one line and free of control characters."""
    value = _plain(value)
    if value is None:
        return _DASH
    if isinstance(value, float):
        return f"{100 * value:.1f}" if name in percent else f"{value:.4g}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else str(value)
    return "".join(c if c.isprintable() else " " for c in text)


def _plain(value: Any) -> Any:
    """A value as JSON has it: no NaN, no infinity, times in ISO 8601, bytes in hexadecimal."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)


FORMATS: dict[str, Callable[[list[str], Cells, Collection[str], IO[str]], None]] = {
    "table": _table,
    "json": _json,
    "csv": _csv,
    "md": _md,
}
