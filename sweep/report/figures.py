"""The drawings: plain numbers in, a Matplotlib figure out. Wide enough for a phone; no meaning by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.report.svg import COLOURS, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = Sequence[float | None]
WIDTH = 5.0  # inches
_LONGEST = 28  # characters of a label
_STYLES = (("one", "-", "o"), ("two", "--", "s"), ("three", ":", "^"), ("four", "-.", "D"), ("five", "-", "x"))
MOST_LINES = len(_STYLES)
_STRONGEST = 0.45  # opacity of a cell: its number stays readable on it


@dataclass(frozen=True)
class Series:
    """A name and its values, None where there are none; `low` and `high` are the ends of their intervals."""

    name: str
    values: Values
    low: Values = ()
    high: Values = ()


@dataclass(frozen=True)
class Axis:
    """One axis of parallel coordinates: where each line crosses it (0..1, None where it does not) and its marks."""

    name: str
    places: Values
    marks: Sequence[tuple[float, str]] = field(default_factory=tuple)


def label(text: Any) -> str:
    """A name as a figure has it: printable, and not too long."""
    shown = "".join(c if c.isprintable() else " " for c in str(text))
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _plane(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure((width, height))
    return figure, figure.subplots()


def _array(values: Values) -> Any:
    return np.array([np.nan if value is None else value for value in values], float)


def bars(names: Sequence[str], series: Sequence[Series], unit: str) -> Figure:
    """Horizontal bars with intervals, a group for each name, from the top; the second series is hatched."""
    with drawing():
        thick = 0.8 / len(series)
        figure, axes = _plane(0.9 + len(names) * (0.08 + 0.1 * len(series)))
        for k, one in enumerate(series):
            at = np.arange(len(names)) + (k - (len(series) - 1) / 2) * thick
            colour, values = COLOURS[_STYLES[k][0]], _array(one.values)
            look: dict[str, Any] = {"facecolor": colour} if k == 0 else {"facecolor": "none", "hatch": "//////"}
            axes.barh(at, np.nan_to_num(values), thick * 0.86, edgecolor=colour, label=label(one.name), **look)
            if one.low:
                ends = np.abs([values - _array(one.low), _array(one.high) - values])
                axes.errorbar(values, at, xerr=ends, fmt="none", ecolor=COLOURS["ink"], elinewidth=1.1, capsize=2)
        axes.set_yticks(range(len(names)), [label(name) for name in names])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(unit)
        axes.grid(axis="x")
        if len(series) > 1:
            figure.legend(loc="outside upper left", ncols=2)
        return figure


def heat(rows: Sequence[str], columns: Sequence[str], values: Any, across: str = "", digits: int = 1) -> Figure:
    """A cell for each number (rows, columns), stronger the larger it is; what is below 0 has the other colour, and
    every number stands in its cell with its sign where some are below 0. Cells are numbered where there is room."""
    grid = np.asarray(values, float)
    signed, largest = bool((grid < 0).any()), float(np.nanmax(np.abs(grid), initial=0.0)) or 1.0
    few = len(columns) <= 24
    with drawing():
        cell = 0.42 if few else max(0.06, 8 / len(columns))
        figure, axes = _plane(1.1 + 0.26 * len(rows), max(WIDTH, 1.2 + cell * len(columns)))
        mesh = axes.pcolormesh(grid, edgecolors=COLOURS["rule"], linewidth=0.6 if few else 0)
        mesh.set_array(None)
        mesh.set_facecolor([_tint(value, largest) for value in grid.ravel()])
        for (i, j), value in np.ndenumerate(grid) if few else ():
            shown = f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"
            axes.text(j + 0.5, i + 0.5, shown, ha="center", va="center", fontsize=9)
        step = max(1, len(columns) // 12) if not few else 1
        turned = any(len(name) > 3 for name in columns)
        axes.set_xticks(np.arange(0, len(columns), step) + 0.5, [label(name) for name in columns[::step]])
        axes.tick_params(axis="x", rotation=90 * turned, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.set_yticks(np.arange(len(rows)) + 0.5, [label(name) for name in rows])
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel(across)
        axes.spines[:].set_visible(False)
        return figure


def _tint(value: float, largest: float) -> tuple[float, float, float, float]:
    from matplotlib.colors import to_rgb

    if not np.isfinite(value):
        value = 0.0
    red, green, blue = to_rgb(COLOURS["two" if value < 0 else "one"])
    return red, green, blue, _STRONGEST * abs(value) / largest


def lines(x: Sequence[Sequence[float]], series: Sequence[Series], across: str, up: str) -> Figure:
    """Up to MOST_LINES lines, each with a colour, a dash and a mark of its own."""
    from matplotlib.ticker import MaxNLocator

    with drawing():
        figure, axes = _plane(2.9 + 0.2 * len(series))
        for places, one, (colour, dash, mark) in zip(x, series, _STYLES, strict=False):
            spare = max(1, len(places) // 8)
            look: dict[str, Any] = {"color": COLOURS[colour], "linestyle": dash, "marker": mark, "markevery": spare}
            axes.plot(places, _array(one.values), markersize=5, label=label(one.name), **look)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left")
        return figure


def scatter(
    points: Sequence[tuple[float, float]], front: Sequence[int], named: Sequence[tuple[int, str]], x: str, y: str
) -> Figure:
    """Points; those of the front are joined and filled, the named ones are told beside a mark of their own."""
    with drawing():
        figure, axes = _plane(3.6)
        all_x, all_y = np.array(points, float).T
        ordered = sorted(front, key=lambda k: points[k])
        axes.plot(all_x[ordered], all_y[ordered], color=COLOURS["one"], linewidth=1.2, marker="s", label="front")
        rest = [k for k in range(len(points)) if k not in set(front)]
        look: dict[str, Any] = {"facecolors": "none", "edgecolors": COLOURS["muted"]}
        axes.scatter(all_x[rest], all_y[rest], s=30, label="behind it", **look)
        for (k, name), mark, size in zip(named, ("*", "D"), (150, 50), strict=False):
            axes.scatter(*points[k], s=size, marker=mark, color=COLOURS["two"], label=label(name), zorder=3)
        axes.margins(0.08)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid()
        figure.legend(loc="outside upper left", ncols=2)
        return figure


def parallel(axes_: Sequence[Axis], strength: Sequence[float], first: int) -> Figure:
    """A line for each configuration through its place on every axis, stronger the better it is; the `first` stands out.
    A line that does not cross an axis passes below it."""
    below = -0.14
    with drawing():
        figure, axes = _plane(3.4, max(WIDTH, 1.25 * len(axes_)))
        order = sorted(range(len(strength)), key=lambda k: (k == first, strength[k]))
        for k in order:
            path = [below if (at := axis.places[k]) is None else at for axis in axes_]
            best = k == first
            look: dict[str, Any] = {"color": COLOURS["two" if best else "one"], "linewidth": 2.6 if best else 1.2}
            axes.plot(path, alpha=1.0 if best else 0.3 + 0.5 * strength[k], **look)
        for k, axis in enumerate(axes_):
            axes.axvline(k, color=COLOURS["muted"], linewidth=0.8, ymin=0.16)
            for at, mark in axis.marks:
                axes.text(k + 0.04, at, label(mark), fontsize=9, va="center")
        axes.set_ylim(below - 0.06, 1.06)
        axes.set_xlim(-0.1, len(axes_) - 0.4)
        axes.set_xticks(range(len(axes_)), [label(axis.name).replace(".", ".\n") for axis in axes_])
        axes.set_yticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure
