"""What a storage says of its sweeps, their trials and drivers."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import Any

import numpy as np

from attacks.errors import InputError
from sweep import alternatives, idle, lease, logs, tables
from sweep.confirmation import owed
from sweep.goals import LP, SEMANTIC, VALUE, WORST, Goal
from sweep.intervals import Floats, bootstrap
from sweep.schema import EVALUATION, EXPERIMENT, TRADEOFF
from sweep.settings import METHOD
from sweep.storage import Storage, default_uri
from sweep.store import COMPLETE, FAILED, PLANNED, PRUNED, Store, sweep_ids
from sweep.tables.averages import AVERAGE
from sweep.tables.columns import WORST_CASE

Rows = list[dict[str, Any]]


def sweeps(storage: Storage) -> Rows:
    """One row a sweep: what it is, how many trials in each state, its best value, and where a driver was last heard and
    how long ago. A damaged one says so."""
    return [_sweep(Store(storage, sweep_id)) for sweep_id in sweep_ids(storage)]


def _sweep(store: Store) -> dict[str, Any]:
    try:
        document = store.document()
        if document.get("kind") not in (EVALUATION, EXPERIMENT, TRADEOFF):
            sound(store)
        best = store.best()
    except InputError as e:
        return {"sweep": store.sweep_id, "space": f"damaged: {e}"}
    states = store.trials().to_pylist()
    counts = {state.lower(): sum(row["state"] == state for row in states) for state in (COMPLETE, PRUNED, FAILED)}
    shown = {name: document.get(name) for name in ("space", "method", "dataset", "created", "trials")}
    holder = lease.holder(store.folder)
    driven = None if holder is None or holder.dead() else f"on {holder.host}, {holder.age():.0f} s ago"
    return {"sweep": store.sweep_id, **shown, **counts, "best": best and best["values"][0], "driven": driven}


def trials(store: Store) -> Rows:
    """One row a run, with the epochs it has behind it and, of one that has begun and not ended, the seconds since its
    log last grew, by this machine's clock."""
    document = sound(store)
    epochs: dict[str, int] = {}
    for row in store.epochs().select(["trial", "epoch"]).to_pylist():
        epochs[row["trial"]] = max(row["epoch"], epochs.get(row["trial"], 0))
    sweep = alternatives.reload(document["spec"])

    def planned(params: dict[str, Any]) -> Any:
        usual = sweep.alternatives[sweep.name(params)].trial.recipe().epochs
        return params.get("optimizer.epochs", usual)

    return [
        {name: row[name] for name in ("number", "method", "seed", "replay", "key", "state", "value")}
        | {"epochs": f"{epochs.get(row['key'], 0)}/{planned(json.loads(row['params']))}"}
        | {"seconds": row["seconds"], "heard": _heard(store, row), "error": row["error"]}
        for row in store.trials().to_pylist()
    ]


def _heard(store: Store, row: dict[str, Any]) -> float | None:
    last = logs.heard(store.folder, row["key"]) if row["state"] == PLANNED else None
    return None if last is None else max(0.0, (datetime.now(UTC) - last).total_seconds())


def idle_share(store: Store) -> str | None:
    """One line: how much of its workers' time no trial took; None where nothing has run."""
    found = idle.share(store)
    return found and f"idle: {100 * found[0]:.0f} % of {found[1]:.2f} hours of room for one trial"


def log(store: Store, number: int) -> list[tuple[str, list[str]]]:
    """A title and the log's lines of each run of a configuration, in the order of the seeds."""
    sound(store)
    runs = [row for row in store.trials().to_pylist() if row["number"] == number]
    if not runs:
        raise InputError(
            f"expected the number of a trial of {store.sweep_id}, got {number}: see `{command('status', store)}`"
        )
    runs.sort(key=lambda row: (row["replay"], row["seed"]))
    title = "seed {seed}{control}, key {key}"
    return [
        (title.format(**row, control=", control" * row["replay"]), logs.read(store.folder, row["key"])) for row in runs
    ]


def driver(store: Store) -> str:
    """One line: who drives the sweep, or how to go on."""
    holder = lease.holder(store.folder)
    if holder is not None and not holder.dead():
        return f"driven by {holder.shown()}, heartbeat {holder.age():.0f} s ago by this machine's clock"
    document = sound(store)
    left = any(row["state"] == PLANNED for row in store.trials().to_pylist())
    if left or len(store.plans()) < document["trials"] or owed(alternatives.reload(document["spec"]), store):
        return f"nobody drives it; go on with: {command('resume', store)}"
    return "finished"


def command(verb: str, store: Store, what: str = "") -> str:
    """What to type for a verb on this sweep, or on `what`; a URI without the secrets that it may hold."""
    usual = store.storage.uri == Storage(default_uri()).uri
    where = "" if usual else f" --storage {shlex.quote(store.storage.typed())}"
    return f"python -m sweep {verb} {what or store.sweep_id}{where}"


def sound(store: Store) -> dict[str, Any]:
    """sweep.json; InputError where the sweep is unknown, or where it is not what `run` wrote."""
    document = store.document()
    if (kind := document.get("kind")) in (EVALUATION, TRADEOFF):
        what = {EVALUATION: "an evaluation", TRADEOFF: "a trade-off matrix"}[kind]
        see = command("table", store) + ("" if kind == EVALUATION else " --split val")
        raise InputError(
            f"{store.sweep_id} is {what}, not a sweep: see `{see}`; the command that began it goes on with it"
        )
    if document.get("kind") == EXPERIMENT:
        raise InputError(f"{store.sweep_id} is an experiment, not a sweep: see `{command('resume', store)}`")
    try:
        if isinstance(document["trials"], int) and isinstance(document["fingerprint"], str):
            document["spec"]["alternatives"]
            return document
    except (KeyError, TypeError):
        pass
    raise InputError(f"{store.folder.where('sweep.json')} is not a sweep's: damaged, or another program's")


def best(store: Store) -> Rows:
    """The best of the configurations all of whose runs are COMPLETE, best first by the sweep's goal (Goal.ranked).

    Of one objective: the first, and those within noise of it, that violate constraints no more: the 95 % interval of
    the difference, over resampled validation images and seeds, holds 0. Of several: the Pareto front. All of that goes
    by the search's runs; `confirmed` are means over those that confirmed it too, `seeds` in all.
    """
    sound(store)
    goal, found = store.goal(), store.configurations()
    chosen = [one for one in found if one["front"]] if len(goal.objectives) > 1 else _near_first(store, found, goal)
    return [
        {"number": one["number"], "method": one["method"], "key": ", ".join(run["key"] for run in one["runs"])}
        | {name: one["metrics"][name] for name in goal.metrics}
        | {f"confirmed {name}": mean for name, mean in one["confirmed"].items() if name in goal.metrics}
        | ({"seeds": len(one["runs"])} if one["confirmed"] else {})
        | ({"feasible": one["violation"] == 0} if goal.constraints else {})
        | ({"behind": found[0]["values"][0] - one["values"][0]} if len(goal.objectives) == 1 else {})
        | {address: value for address, value in json.loads(one["params"]).items() if address != METHOD}
        for one in chosen
    ]


def verdict(store: Store) -> str:
    """What is to be said of the best ones, in one line: what they are the best of; empty for the best value."""
    goal, found = store.goal(), store.configurations()
    told = []
    if found and (bounds := ", ".join(map(str, goal.bounds))):
        kept = sum(one["violation"] == 0 for one in found)
        none = "" if kept else "; what violates least goes first"
        told = [f"{kept} of {len(found)} configurations keep {bounds}{none}"]
    if len(goal.objectives) > 1:
        front = sum(one["front"] for one in found)
        told.append(f"{front} of {len(found)} are on the Pareto front of {', '.join(goal.objectives)}")
    return "; ".join(told)


_COLUMNS = {VALUE: AVERAGE, LP: "avg_lp", SEMANTIC: "avg_semantic", WORST: WORST_CASE}
"""Metric -> its column in the tables, where that is called otherwise."""


def _near_first(store: Store, found: Rows, goal: Goal) -> Rows:
    objective = goal.objectives[0]
    scores = tables.scores(store, "val", _COLUMNS.get(objective, objective))

    def stacked(one: dict[str, Any]) -> Floats | None:
        rows = [scores.get(run["key"]) for run in one["runs"] if not run["confirm"]]
        return None if any(row is None for row in rows) else np.concatenate(rows)  # type: ignore[arg-type]

    near = [one for one in found[1:] if one["violation"] == found[0]["violation"]]
    return found[:1] + [one for one in near if _within_noise(stacked(found[0]), stacked(one))]


def _within_noise(first: Floats | None, other: Floats | None) -> bool:
    if first is None or other is None or first.shape != other.shape:
        return False
    low, high = bootstrap(first, other)
    return low <= 0 <= high
