"""Numbers and names as the page reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.settings import METHOD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DASH = "–"
_COLUMN = 5.5  # inches
_NUMBER = re.compile(r"[+−-]?[\d.,]+(e[+-]\d+)?( [*~])?( \[.*\])?")


@dataclass(frozen=True)
class Grid:
    """A table of texts; the first cell of each row is its head. `marked`: rows to be set off."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[int] = ()

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers alone, to be aligned as such."""
        columns = zip(*self.rows, strict=True)
        return [all(cell == DASH or _NUMBER.fullmatch(cell) for cell in column) for column in columns]


@dataclass(frozen=True)
class Chart:
    """A figure; `name`: its id and its file's name, `alt`: what it shows in a sentence, `data`: its numbers."""

    name: str
    title: str
    alt: str
    figure: Figure
    data: Grid
    note: str = ""

    @property
    def wide(self) -> bool:
        """Whether it needs more than a column of the page."""
        return bool(self.figure.get_figwidth() > _COLUMN)


@dataclass(frozen=True)
class Section:
    """Figures and tables under a heading; `said` are the sentences before them, or why there are none; `notes` those
    that explain signs in the tables."""

    id: str
    title: str
    said: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    grids: Sequence[Grid] = ()
    notes: Sequence[str] = ()


def percent(value: float | None, digits: int = 1) -> str:
    return DASH if value is None else f"{100 * value:.{digits}f}"


def share(value: float | None) -> str:
    """A percentage with its sign, which no line break parts."""
    return f"{percent(value)}\u00a0%"


def points(value: float | None) -> str:
    """A difference of accuracies, in percentage points, with its sign."""
    return DASH if value is None else f"{100 * value:+.1f}".replace("-", "−")


def interval(row: Mapping[str, Any], name: str, shown: Any = percent) -> str:
    """The value at `name` and its interval, where the row has one."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    value: str = shown(row.get(name))
    return value if low is None else f"{value} [{shown(low)}, {shown(high)}]"


def number(value: Any) -> str:
    return DASH if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def settings(params: str | Mapping[str, Any]) -> str:
    """What was searched, but for the method: address=value."""
    held = json.loads(params) if isinstance(params, str) else params
    return ", ".join(f"{address}={number(value)}" for address, value in held.items() if address != METHOD)


def listed(names: Iterable[Any]) -> str:
    """a, b and c"""
    *most, last = [str(name) for name in names] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def counted(count: int, what: str) -> str:
    """1 trial, 2 trials"""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
