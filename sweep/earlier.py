"""A warm start: what earlier sweeps of a storage found, in the terms of a new one's search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attacks.errors import InputError
from sweep import alternatives, starting, status
from sweep.alternatives import GRID, OWN, Sweep
from sweep.goals import Goal, metrics
from sweep.settings import at, flatten
from sweep.spec import FRESH, TrialBase, is_made_here
from sweep.store import COMPLETE, PLANNED, Store, overall

APART = {"seed", "workers", "evaluation"}
"""What may differ between runs whose results compare; of `evaluation` the rest is compared for itself."""
Rows = list[dict[str, Any]]


def recalled(sweep: Sweep, fingerprint: str, stores: Sequence[Store]) -> tuple[Rows, list[str]]:
    """The ended configurations of earlier sweeps that this one could have drawn, in the order of their numbers, as its
    own `params`, with `state` and `metrics`; and a line to be said of each sweep.

    One fits where this sweep, at its values, makes the same trial but for the seed. Refused are sweeps whose data,
    starting model, attacks or evaluation are others, and a warm start in which nothing fits.
    """
    if stores and sweep.searcher == GRID:
        raise InputError("expected a searcher that learns for a warm start, got grid: leave --warm-start out")
    found: Rows = []
    told = []
    for store in stores:
        ended, mine, reasons = _ended(store, sweep, fingerprint), [], []
        for trial, one in ended:
            params = _translated(sweep, trial)
            reason = _unlike(sweep, trial) if params is None else _lacking(sweep.goal, one)
            reasons += [reason] if reason else []
            mine += [] if reason else [{**one, "params": params}]
        why = f"; the others do not fit, the first: {reasons[0]}" if reasons else ""
        told.append(f"begins with {len(mine)} of {len(ended)} ended configurations of {store.sweep_id}{why}")
        found += mine
    if told and not found:
        raise InputError(f"a warm start from nothing: {told[0]}")
    return found, told


def _ended(store: Store, sweep: Sweep, fingerprint: str) -> list[tuple[TrialBase, dict[str, Any]]]:
    """Of an earlier sweep that compares: each configuration's trial, and its state and metrics."""
    document = status.sound(store)
    other = alternatives.reload(document["spec"])
    if apart := _apart(sweep.trial, fingerprint, other.trial, document["fingerprint"]):
        raise InputError(f"{store.sweep_id} cannot warm this sweep: another {apart}, so that the values do not compare")
    rows: dict[int, Rows] = {}
    for row in store.trials().to_pylist():
        if not row["replay"]:
            rows.setdefault(row["number"], []).append(row)
    found = []
    for number, mine in sorted(rows.items()):
        state, value = overall(mine)
        if state != PLANNED:
            about = {"sweep": store.sweep_id, "number": number, "state": state}
            about["metrics"] = {} if value is None else metrics(mine)
            found.append((other.configure(json.loads(mine[0]["params"])), about))
    return found


def _apart(mine: TrialBase, fingerprint: str, other: TrialBase, its: str) -> str | None:
    """What differs of all that the trials of both sweeps would have to share."""
    shared = [key for key in TrialBase.model_fields if key not in {*OWN, *APART}]
    checks = {"data set": fingerprint == its} | {key: getattr(mine, key) == getattr(other, key) for key in shared}
    checks |= {"evaluation": mine.evaluation.resolved() == other.evaluation.resolved()}
    checks |= {"starting model (seed, pretraining)": _start(mine) == _start(other)}
    return next((name for name, alike in checks.items() if not alike), None)


def _start(base: TrialBase) -> Any:
    """What decides the starting model, beside what is compared already."""
    if not is_made_here(base.init):
        return base.init
    return base.seed if base.init == FRESH else starting.pretraining_key(base, "", base.init.partition(":")[2])


def _translated(sweep: Sweep, trial: TrialBase) -> dict[str, Any] | None:
    """The sweep's configuration that makes this trial."""
    document = _document(trial)
    for name, alternative in sweep.alternatives.items():
        try:
            params = {address: at(document, address) for address in alternative.search}
            within = all(alternative.search[address].holds(value) for address, value in params.items())
            if within and _document(alternative.configure(params)) == document:
                return sweep.named(name, params)
        except (KeyError, InputError):
            continue
    return None


def _document(trial: TrialBase) -> dict[str, Any]:
    return trial.model_dump(mode="json", exclude=APART)


def _unlike(sweep: Sweep, trial: TrialBase) -> str:
    """Why no configuration makes this trial: where it first differs from the alternative of its method, or the only
    one."""
    nearest = next((one for one in sweep.alternatives.values() if one.trial.method == trial.method), None)
    if nearest is None:
        return f"method {trial.method}"
    base, search = dict(flatten(_document(nearest.trial))), nearest.search
    for address, value in flatten(_document(trial)):
        if address in search and not search[address].holds(value):
            return f"{address} = {value}, which is not searched"
        if address not in search and base.get(address) != value:
            return f"{address} = {value}, not {base.get(address)}"
    return "its settings"


def _lacking(goal: Goal, one: Mapping[str, Any]) -> str | None:
    lacking: Sequence[str] = [name for name in goal.metrics if name not in one["metrics"]]
    return f"no metric {lacking[0]}" if one["state"] == COMPLETE and lacking else None
