"""What a sweep's folder says of its sweeps, trials and driver."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from attacks.errors import InputError
from sweep import lease, tables
from sweep.bits import unpack
from sweep.storage import Storage
from sweep.store import COMPLETE, FAILED, PLANNED, PRUNED, Store, sweep_ids

Rows = list[dict[str, Any]]


def sweeps(storage: Storage) -> Rows:
    """One row a sweep: what it is, how many trials in each state, its best value. A damaged one says so."""
    return [_sweep(Store(storage, sweep_id)) for sweep_id in sweep_ids(storage)]


def _sweep(store: Store) -> dict[str, Any]:
    try:
        document = store.document()
    except InputError as e:
        return {"sweep": store.sweep_id, "space": f"damaged: {e}"}
    states = store.trials().to_pylist()
    counts = {state.lower(): sum(row["state"] == state for row in states) for state in (COMPLETE, PRUNED, FAILED)}
    values = [row["value"] for row in states if row["state"] == COMPLETE]
    shown = {name: document.get(name) for name in ("space", "method", "dataset", "created", "trials")}
    return {"sweep": store.sweep_id, **shown, **counts, "best": max(values, default=None)}


def trials(store: Store) -> Rows:
    """One row a trial, with the epochs it has behind it."""
    document = store.document()
    epochs: dict[str, int] = {}
    for row in store.epochs().select(["trial", "epoch"]).to_pylist():
        epochs[row["trial"]] = max(row["epoch"], epochs.get(row["trial"], 0))
    total = document["spec"]["trial"]["optimizer"]["epochs"]
    return [
        {name: row[name] for name in ("number", "key", "state", "value")}
        | {"epochs": f"{epochs.get(row['key'], 0)}/{json.loads(row['params']).get('optimizer.epochs', total)}"}
        | {"seconds": row["seconds"], "error": row["error"]}
        for row in store.trials().to_pylist()
    ]


def driver(store: Store) -> str:
    """One line: who drives the sweep, or how to go on."""
    done = {row["state"] for row in store.trials().to_pylist()}
    holder = lease.holder(store.folder)
    if holder is not None:
        return f"driven by {holder.shown()}, heartbeat {holder.age():.0f} s ago by this machine's clock"
    unfinished = PLANNED in done or len(store.plans()) < store.document()["trials"]
    return f"nobody drives it; go on with: python -m sweep resume {store.sweep_id}" if unfinished else "finished"


def best(store: Store) -> Rows:
    """The COMPLETE trials, best first, down to the last whose value lies within noise of the first: the 95 % interval of
    the difference, over resampled validation images, holds 0."""
    store.document()
    rows = [row for row in store.trials().to_pylist() if row["state"] == COMPLETE]
    rows.sort(key=lambda row: (-row["value"], row["number"]))
    scores = _scores(store)
    kept = [
        {"number": row["number"], "key": row["key"], "value": row["value"], "behind": rows[0]["value"] - row["value"]}
        | json.loads(row["params"])
        for row in rows
        if row is rows[0] or _within_noise(scores.get(rows[0]["key"]), scores.get(row["key"]))
    ]
    return kept


def _scores(store: Store) -> dict[str, Any]:
    """Trial -> (1, images): each validation image's share in the trial's value."""
    by_trial: dict[str, list[dict[str, Any]]] = {}
    for row in store.results().to_pylist():
        if row["split"] == "val" and row["attack"] != "clean":
            by_trial.setdefault(row["trial"], []).append(row)
    return {trial: _image_scores(rows) for trial, rows in by_trial.items()}


def _image_scores(rows: Rows) -> Any:
    groups = {"lp": [r for r in rows if r["family"] == "lp"], "other": [r for r in rows if r["family"] != "lp"]}
    means = [np.mean([unpack(r["robust_bits"], r["n"]) for r in group], axis=0) for group in groups.values() if group]
    return np.mean(means, axis=0)[None]


def _within_noise(first: Any, other: Any) -> bool:
    if first is None or other is None or first.shape != other.shape:
        return False
    low, high = tables.bootstrap(first, other)
    return low <= 0 <= high
