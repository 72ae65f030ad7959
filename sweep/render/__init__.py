"""Rows to text: a table for a terminal, a paper or a page, or json, csv for the next program. NaN and null are null, or
a dash."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import IO, Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attacks.errors import unknown
from sweep.render import documents
from sweep.render.sheet import BEST, SIGNS, TIED, Marks, Rows, Sheet, plain, sheet

_WIDE = 120
_BLANK = "\ue000"  # which Rich keeps at the end of a cell, and no text has


def show(
    rows: Rows | pa.Table,
    format: str = "table",
    *,
    percent: Collection[str] = (),
    marks: Marks | None = None,
    caption: str = "",
    notes: Sequence[str] = (),
    upright: bool = False,
    file: IO[str] | None = None,
) -> None:
    """Writes the rows in a format (see FORMATS) to the file, by default stdout.

    Columns named in `percent` are fractions: they read as percent with one decimal, and stay fractions in json and csv.
    `marks`: for each row, column -> "best" (bold, and a star) or "tied" (a ~; underlined in latex); in json and csv
    they are the columns best_in and tied_in. `caption` and `notes` are for readers: json and csv have none.
    A table that is wider than the terminal, or a page, of few rows, is turned on its side, unless it is `upright`.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    made = replace(sheet(rows), percent=percent, marks=marks, caption=caption, notes=notes, upright=upright)
    (file or sys.stdout).write(FORMATS[format](made, file or sys.stdout))


def _json(sheet: Sheet, out: IO[str]) -> str:
    sheet = sheet.with_marks
    rows = [dict(zip(sheet.columns, map(plain, row), strict=True)) for row in sheet.cells]
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(sheet: Sheet, out: IO[str]) -> str:
    sheet, made = sheet.with_marks, io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(sheet.columns)
    writer.writerows([_compact(plain(value)) for value in row] for row in sheet.cells)
    return made.getvalue()


def _compact(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else value


def _md(sheet: Sheet, out: IO[str]) -> str:
    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(values) + " |\n"

    def cell(text: str, mark: str | None) -> str:
        text = _in_md(text)
        return {BEST: f"**{text}** \\*", TIED: f"{text} \\~", None: text}[mark]

    lines = [line([_in_md(name) for name in sheet.columns])]
    lines.append(line(["---:" if right else "---" for right in sheet.numeric]))
    for texts, marks in zip(sheet.texts, sheet.marked, strict=True):
        lines.append(line([cell(text, mark) for text, mark in zip(texts, marks, strict=True)]))
    told = "".join(f"\n{note}\n" for note in sheet.told("**bold** \\*", "\\~"))
    return (f"**{_in_md(sheet.caption)}**\n\n" if sheet.caption else "") + "".join(lines) + told


def _in_md(text: str) -> str:
    return text.replace("|", "\\|")


def _table(sheet: Sheet, out: IO[str]) -> str:
    terminal = bool(getattr(out, "isatty", lambda: False)())
    width = shutil.get_terminal_size().columns if terminal else sys.maxsize
    columns, texts, marks, right = sheet.columns, _signed(sheet), sheet.marked, sheet.numeric
    few = not sheet.upright and 0 < len(texts) <= documents.FEW
    if few and _width(columns, texts) > (width if terminal else _WIDE):
        columns, texts, marks, right = documents.turned(columns, texts, marks)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, numeric in zip(columns, right, strict=True):
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=not terminal)
    for row, marked in zip(texts, marks, strict=True):
        cells = zip(row, marked, strict=True)
        table.add_row(*(Text(text, style="bold" if mark == BEST else "") for text, mark in cells))
    made = io.StringIO()
    console = Console(file=made, width=min(width, 100_000), force_terminal=terminal, legacy_windows=False)
    console.print(table)
    lines = [sheet.caption] if sheet.caption else []
    lines += [line.rstrip() for line in made.getvalue().replace(_BLANK, " ").splitlines()]
    return "".join(f"{line}\n" for line in [*lines, *sheet.told(SIGNS[BEST], SIGNS[TIED])])


def _signed(sheet: Sheet) -> list[list[str]]:
    """The texts with their signs; in a column that has some, a blank for none, so that numbers keep their places."""
    some = {i for row in sheet.marked for i, mark in enumerate(row) if mark}

    def sign(i: int, mark: str | None) -> str:
        return SIGNS[mark] if mark else _BLANK if i in some else ""

    return [
        [text + sign(i, mark) for i, (text, mark) in enumerate(zip(texts, marks, strict=True))]
        for texts, marks in zip(sheet.texts, sheet.marked, strict=True)
    ]


def _width(columns: list[str], texts: list[list[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(columns, *texts, strict=True))


FORMATS: dict[str, Callable[[Sheet, IO[str]], str]] = {
    "table": _table,
    "json": _json,
    "csv": _csv,
    "md": _md,
    "latex": lambda sheet, _: documents.latex(sheet),
    "html": lambda sheet, _: documents.html(sheet),
}
