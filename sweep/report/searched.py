"""What the search found: the Pareto front, the configurations as lines, and which hyper-parameters mattered."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attacks.errors import InputError
from sweep.report import figures
from sweep.report.figures import Axis, Series
from sweep.report.snapshot import Snapshot
from sweep.report.words import DASH, Chart, Grid, Section, counted, listed, number, percent, settings

MOST_FRONT = 100
MOST_LINES = 200
MOST_AXES = 10
MOST_NAMED = 6
_WIDE = 20.0
"""A parameter whose values span more than this factor has a logarithmic axis."""
Row = Mapping[str, Any]


def front(store: Snapshot) -> Section:
    """Clean accuracy against the average, of the configurations that came first in the search."""
    from sweep.analysis import pareto

    title, first = "Clean against robust", store.configurations()[:MOST_FRONT]
    keys = {run["key"] for one in first for run in one["runs"]}
    try:
        rows = pareto.front(store.only(keys), "val")
    except InputError as e:
        return Section("front", title, [f"No Pareto front yet: {e}."])
    on_front = [k for k, row in enumerate(rows) if row["on_front"]]
    names = [f"{row['method']} (trial {row['number']})" for row in rows]
    few = [names[k] for k in on_front[:MOST_NAMED]] + (["others"] if len(on_front) > MOST_NAMED else [])
    said = [f"No other configuration is better in both than {listed(few)}."]
    if len(store.configurations()) > MOST_FRONT:
        said.append(f"Of the best {MOST_FRONT} of {len(store.configurations()):,} configurations by value.")
    return Section("front", title, said, [_front_chart(rows, names, on_front, first[0]["number"], said[0])])


def _front_chart(rows: Sequence[Row], names: Sequence[str], on_front: Sequence[int], chosen: int, told: str) -> Chart:
    best = [(k, f"chosen: trial {chosen}") for k, row in enumerate(rows) if row["number"] == chosen]
    places = [(100 * row["clean"], 100 * row["average"]) for row in rows]
    heads = ["Configuration", "Settings", "Clean", "Average", "On the front", "Beaten beyond noise by"]
    cells = [
        [name, row["settings"], percent(row["clean"]), percent(row["average"]), _on(row), row["dominated_by"] or DASH]
        for name, row in zip(names, rows, strict=True)
    ]
    what = f"clean accuracy against average robust accuracy for {counted(len(rows), 'configuration')}"
    return Chart(
        "front",
        "Pareto front on the validation split",
        f"Scatter plot of {what}. {told}",
        figures.scatter(places, on_front, best, "clean accuracy, %", "average robust accuracy, %"),
        Grid("Clean and average robust accuracy in percent on the validation split", heads, cells),
    )


def _on(row: Row) -> str:
    return "yes" if row["on_front"] else "within noise" if row["within_noise"] else "no"


def parameters(store: Snapshot) -> Section:
    """Parallel coordinates and importances."""
    title, found = "Hyper-parameters", store.configurations()
    varied = _varied(json.loads(one["params"]) for one in found)
    if not varied:
        none = "Fewer than two finished configurations differ: there is nothing to compare."
        return Section("parameters", title, [none])
    said, shares = _shares(store)
    charts = [_parallel(found[:MOST_LINES], _first(varied, shares))]
    if told := [row for row in shares if row["importance"] is not None]:
        charts.append(_importances(told))
    elif not said:
        said = ["Importances need more finished trials of a method."]
    if len(found) > MOST_LINES:
        said = [*said, f"The lines are the best {MOST_LINES} of {len(found):,} configurations."]
    return Section("parameters", title, said, charts)


def _varied(params: Iterable[Row]) -> list[str]:
    """The addresses at which configurations differ; one that only some have is such."""
    held: dict[str, set[str]] = {}
    listed_params = list(params)
    for address in dict.fromkeys(address for one in listed_params for address in one):
        held[address] = {json.dumps(one.get(address)) for one in listed_params}
    return [address for address, values in held.items() if len(values) > 1]


def _shares(store: Snapshot) -> tuple[list[str], list[Row]]:
    """Why there is no importance, and the importances."""
    from sweep.analysis.importance import importance

    try:
        return [], list(importance(store))
    except InputError as e:
        return [f"No importances yet: {e}."], []


def _first(varied: Sequence[str], shares: Sequence[Row]) -> list[str]:
    """The addresses of most importance, in their own order."""
    by_share = {row["parameter"]: row["importance"] or 0.0 for row in shares}
    chosen = sorted(varied, key=lambda address: -by_share.get(address, 0.0))[:MOST_AXES]
    return [address for address in varied if address in chosen]


def _parallel(found: Sequence[Row], addresses: Sequence[str]) -> Chart:
    params, values = [json.loads(one["params"]) for one in found], [one["value"] for one in found]
    axes = [_axis(address, [one.get(address) for one in params]) for address in addresses]
    axes.append(_axis("value, %", [100 * value for value in values]))
    spread = (max(values) - min(values)) or 1.0
    strength = [(value - min(values)) / spread for value in values]
    rows = [
        [f"trial {one['number']}", *(number(held.get(address)) for address in addresses), percent(one["value"], 2)]
        for one, held in zip(found, params, strict=True)
    ]
    return Chart(
        "parallel",
        "Configurations and what they reached",
        f"Parallel coordinates of {counted(len(found), 'configuration')} over {listed(addresses)} and the value on the "
        f"validation split; the best is trial {found[0]['number']} with {settings(params[0]) or 'the defaults'}.",
        figures.parallel(axes, strength, 0),
        Grid("Searched settings and the value in percent, best first", ["Trial", *addresses, "Value"], rows),
        "The best is drawn thick; a line that passes below an axis has no such setting.",
    )


def _axis(name: str, values: Sequence[Any]) -> Axis:
    """Numbers on a linear or logarithmic scale; anything else at even places."""
    held = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in held):
        return _scale(name, values, held)
    kinds = sorted({str(value) for value in held})
    at = {kind: (k / (len(kinds) - 1) if len(kinds) > 1 else 0.5) for k, kind in enumerate(kinds)}
    return Axis(name, [None if value is None else at[str(value)] for value in values], [(at[k], k) for k in kinds])


def _scale(name: str, values: Sequence[Any], held: Sequence[float]) -> Axis:
    low, high = min(held), max(held)
    log = low > 0 and high / low > _WIDE
    read = math.log if log else float
    span = (read(high) - read(low)) or 1.0
    middle = math.sqrt(low * high) if log else (low + high) / 2
    marks = [((read(v) - read(low)) / span, f"{v:.3g}") for v in ((low, middle, high) if high > low else (low,))]
    return Axis(name, [None if v is None else (read(v) - read(low)) / span for v in values], marks)


def _importances(shares: Sequence[Row]) -> Chart:
    ordered = sorted(shares, key=lambda row: -row["importance"])[: 2 * MOST_AXES]
    names = [f"{row['parameter']} ({row['method']})" if row["method"] else str(row["parameter"]) for row in ordered]
    values = [100 * row["importance"] for row in ordered]
    return Chart(
        "importance",
        "Importance of each hyper-parameter",
        f"Bar chart of importances: {names[0]} explains most, {values[0]:.0f} % of what varies among its trials.",
        figures.bars(names, [Series("importance", values)], "share of the variation of the value, %"),
        Grid(
            "Importance in percent, by fANOVA",
            ["Parameter", "Importance", "Trials"],
            [[n, f"{v:.1f}", str(row["trials"])] for n, v, row in zip(names, values, ordered, strict=True)],
        ),
    )
