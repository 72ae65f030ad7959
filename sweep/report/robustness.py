"""The chosen model beside the one it started from, attack by attack, and the tables of all."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.render.sheet import SIGNS
from sweep.report import figures
from sweep.report.explorer import label
from sweep.report.figures import Series
from sweep.report.standing import Cells, Standing
from sweep.report.words import Chart, Grid, Section, counted, interval, percent, points
from sweep.tables.models import CLEAN

_ROUND_OFF = 1e-9


def against_start(standing: Standing) -> Section:
    """Bars of both models for clean images, every attack and the averages."""
    title = "Robustness against each attack"
    places = [place for place in (standing.best, standing.start) if place is not None]
    if not places:
        return Section("attacks", title, standing.said or ["No model has been judged yet."])
    columns = [CLEAN, *standing.attacks, *standing.averages]
    heads = [label(standing.table.models[place]) for place in places]
    rows = [standing.table.rows[place] for place in places]
    series = [_series(head, row, columns) for head, row in zip(heads, rows, strict=True)]
    names = [spelled(column) for column in columns]
    cells = [[name, *(interval(row, column) for row in rows)] for name, column in zip(names, columns, strict=True)]
    told = _told(standing, heads[0])
    chart = Chart(
        "attacks",
        f"Accuracy on the {standing.split_name} split",
        f"Bar chart of {' and '.join(heads)} under {counted(len(standing.attacks), 'attack')}. {told}",
        figures.bars(names, series, "accuracy, % (line: 95 % interval)"),
        Grid("Accuracy in percent, with its 95 % interval in brackets", ["Attack", *heads], cells),
    )
    return Section("attacks", title, [told], [chart])


def _series(name: str, row: Cells, columns: Sequence[str]) -> Series:
    def each(ending: str) -> list[float | None]:
        found = [row.get(column + ending) for column in columns]
        return [None if value is None else 100 * value for value in found]

    return Series(name, each(""), each("_low"), each("_high"))


def _told(standing: Standing, name: str) -> str:
    """Where the chosen model gained and where it lost."""
    best, start = standing.row(standing.best), standing.row(standing.start)
    if best is None:
        return "The chosen model has not been judged here yet."
    if start is None:
        return "The starting model was not judged here."
    pairs = {attack: (best[attack], start[attack]) for attack in standing.attacks}
    moved = {attack: b - s for attack, (b, s) in pairs.items() if b is not None and s is not None}
    if not moved:
        return "The two models met no attack in common."
    up, down = max(moved, key=lambda attack: moved[attack]), min(moved, key=lambda attack: moved[attack])
    better, worse = (sum(sign * value > _ROUND_OFF for value in moved.values()) for sign in (1, -1))
    return (
        f"{name} holds more images than the starting model under {better} of {counted(len(moved), 'attack')} and fewer "
        f"under {worse}: from {points(moved[down])} points ({down}) to {points(moved[up])} ({up})."
    )


def models(standing: Standing) -> Section:
    """All models: their averages with intervals; and every attack's column."""
    title, said, shown = "All models", [*standing.said], len(standing.table.rows)
    if not shown:
        return Section("models", title, said)
    if (more := standing.models - shown) > 0:
        said.append(
            f"The best {shown} of {standing.models:,} models by average; `table` has {more:,} more. What is best of a "
            "column, here, is the best of these."
        )
    return Section("models", title, said, (), [_averages(standing), _each(standing)], standing.table.notes)


def _averages(standing: Standing) -> Grid:
    *parts, average = standing.averages
    columns = [average, "gain", CLEAN, *parts]
    heads = ["Model", average, "gain over the start", CLEAN, *map(spelled, parts), "seeds", "settings"]

    def cells(k: int, row: Cells) -> list[str]:
        shown = (_cell(standing, k, column) for column in columns)
        return [_named(standing, k), *shown, str(row["seeds"]), row.get("settings") or ""]

    rows = [cells(k, row) for k, row in enumerate(standing.table.rows)]
    if any(doubts := [row.get("flags") or "" for row in standing.table.rows]):
        heads, rows = [*heads, "reasons to doubt it"], [[*row, why] for row, why in zip(rows, doubts, strict=True)]
    order = "the starting model, then the best average first; 95 % intervals in brackets"
    return Grid(f"Accuracy on the {standing.split_name} split in percent, {order}", heads, rows, _marked(standing))


def _each(standing: Standing) -> Grid:
    columns = [
        *standing.attacks,
        *(name for name in ("union of all", "worst attack") if name in standing.table.rows[0]),
    ]
    rows = [
        [_named(standing, k), *(_cell(standing, k, column) for column in columns)]
        for k in range(len(standing.table.rows))
    ]
    caption = f"Accuracy under each attack in percent, {standing.split_name} split; 95 % intervals in brackets"
    return Grid(caption, ["Model", *columns], rows, _marked(standing))


def _cell(standing: Standing, k: int, column: str) -> str:
    """The value with its interval, and its mark after it."""
    mark = (standing.table.marks or [{}] * (k + 1))[k].get(column)
    shown = interval(standing.table.rows[k], column, points if column == "gain" else percent)
    value, space, ends = shown.partition(" ")
    return f"{value} {SIGNS[mark]}{space}{ends}" if mark else shown


def _marked(standing: Standing) -> list[int]:
    return [] if standing.best is None else [standing.best]


def _named(standing: Standing, k: int) -> str:
    return label(standing.table.models[k]) + (" ★ chosen" if k == standing.best else "")


def spelled(column: str) -> str:
    """avg_lp: average lp"""
    return column.replace("avg_", "average ").replace("_", " ")
