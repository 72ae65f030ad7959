"""What happened while the models were trained: sampling probabilities and learning curves, one line a method."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sweep.report import figures
from sweep.report.figures import Series
from sweep.report.snapshot import Snapshot, of_trials
from sweep.report.words import Chart, Grid, Section, counted, listed, percent

MOST_METHODS = figures.MOST_LINES
Row = dict[str, Any]


def probabilities(store: Snapshot) -> Section:
    """How probable each attack was at each epoch, for the best configuration of each method that draws attacks."""
    charts: list[Chart] = []
    for one in of_each_method(store):
        by_epoch = _over_seeds(_epochs(store, one), "probabilities", json.loads)
        if by_epoch:
            charts.append(_probability_chart(len(charts), one, by_epoch))
    said = "The best configuration of each method, mean over its seeds; the darker a cell, the likelier the attack."
    none = "No probability is stored: no epoch has ended yet, or the method draws no attack at random."
    return Section("sampling", "Sampling probabilities", [said if charts else none], charts)


def _probability_chart(k: int, one: Row, by_epoch: dict[int, list[dict[str, float]]]) -> Chart:
    means = {epoch: _mean(found) for epoch, found in by_epoch.items()}
    names, epochs = list(next(iter(means.values()))), list(means)
    values = [[100 * means[epoch].get(name, 0.0) for epoch in epochs] for name in names]
    last = means[epochs[-1]]
    likeliest = max(last, key=lambda name: last[name])
    what = f"{one['method']} (trial {one['number']})"
    return Chart(
        f"probabilities-{k}",
        what,
        f"Heat map of {len(names)} attacks over {counted(len(epochs), 'epoch')} for {what}: at the end {likeliest} is "
        f"the likeliest, at {percent(last[likeliest])} %.",
        figures.heat(names, [str(epoch) for epoch in epochs], values, "probability in % at each epoch"),
        Grid(
            f"{what}: probability of each attack in percent",
            ["Attack", *(f"epoch {epoch}" for epoch in epochs)],
            [[name, *(f"{value:.1f}" for value in row)] for name, row in zip(names, values, strict=True)],
        ),
    )


_CURVES = (  # column, title, unit, as a person reads it
    ("train_loss", "Training loss", "loss", lambda value: value),
    ("train_accuracy", "Accuracy on the training batches", "attacked images held, %", lambda value: 100 * value),
)


def learning(store: Snapshot) -> Section:
    """Loss and accuracy over the epochs, of the best configuration of each method."""
    title, best = "Learning curves", of_each_method(store)
    charts = []
    for column, what, unit, read in _CURVES:
        found = [(one, _over_seeds(_epochs(store, one), column, read)) for one in best]
        if held := [(one, {e: sum(v) / len(v) for e, v in values.items()}) for one, values in found if values]:
            charts.append(_curve(column.replace("_", "-"), what, unit, held))
    said = "The best configuration of each method, mean over its seeds."
    return Section("learning", title, [said if charts else "No epoch of a trial has ended yet."], charts)


def _curve(name: str, title: str, unit: str, held: Sequence[tuple[Row, dict[int, float]]]) -> Chart:
    series = [Series(f"{one['method']} (trial {one['number']})", list(values.values())) for one, values in held]
    ends = listed(f"{one.name} {one.values[-1]:.3g}" for one in series)
    epochs = sorted({epoch for _, values in held for epoch in values})
    rows = [
        [str(epoch), *(f"{values[epoch]:.4g}" if epoch in values else "–" for _, values in held)] for epoch in epochs
    ]
    return Chart(
        name,
        title,
        f"Line chart of {title.lower()} over {counted(len(epochs), 'epoch')}; at the end: {ends}.",
        figures.lines([list(values) for _, values in held], series, "epoch", unit),
        Grid(f"{title} ({unit}) by epoch", ["Epoch", *(one.name for one in series)], rows),
    )


def of_each_method(store: Snapshot) -> list[Row]:
    """The best configuration of each method, best first; before any has ended, the first planned one of each."""
    found: dict[str, Row] = {}
    for one in store.configurations():
        found.setdefault(one["method"], one)
    for run in store.trials().to_pylist():
        found.setdefault(run["method"], {"number": run["number"], "method": run["method"], "runs": []})
    for one in found.values():
        one["runs"] = one["runs"] or [run for run in store.trials().to_pylist() if run["number"] == one["number"]]
    return list(found.values())[:MOST_METHODS]


def _epochs(store: Snapshot, one: Row) -> list[Row]:
    columns = ["trial", "epoch", "probabilities", *(column for column, *_ in _CURVES)]
    return list(store.epochs(columns, of_trials([run["key"] for run in one["runs"]])).to_pylist())


def _over_seeds(rows: Sequence[Row], column: str, read: Callable[[Any], Any]) -> dict[int, list[Any]]:
    """Epoch -> what each run has at it."""
    found: dict[int, list[Any]] = {}
    for row in rows:
        if row[column] is not None:
            found.setdefault(row["epoch"], []).append(read(row[column]))
    return dict(sorted(found.items()))


def _mean(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(one.get(name, 0.0) for one in found) / len(found) for name in found[0]}
