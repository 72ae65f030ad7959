"""Experiments that train no network: spaces with the key `experiment`. They run here, without Ray, into a folder like a
sweep's, a configuration a `trials` row and a step an `epochs` row, and go on where they were."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from statistics import median
from time import perf_counter
from typing import Any

from pydantic import ValidationError

from attacks.errors import InputError, unknown
from sweep import driver
from sweep.schema import EXPERIMENT
from sweep.settings import Document, complain, faults, section
from sweep.spec import digest
from sweep.store import COMPLETE, Store
from trainers import svm
from trainers.svm import Step, Svm

KEY = "experiment"
EXPERIMENTS = {"svm": Svm}
SETTLED = 0.01
"""A loss has converged that moves by at most this share of itself, with no sign flipped, over the last half."""


def cases(document: Document, source: str, first: int | None = None) -> dict[str, Svm]:
    """The configurations of an experiment by name, or the `first` of them; every fault in one InputError."""
    if (kind := document.get(KEY)) not in EXPERIMENTS:
        raise unknown(KEY, str(kind), EXPERIMENTS)
    given, found, made = document.get("cases"), [], {}
    if more := document.keys() - {KEY, "cases"}:
        raise InputError(f"{source}: expected {KEY} and cases, got {', '.join(sorted(more))}")
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{source}: expected cases by name, got {given!r}")
    known = section(EXPERIMENTS[str(kind)])
    for name, settings in given.items():
        try:
            made[str(name)] = EXPERIMENTS[str(kind)](**known.model_validate(settings or {}).model_dump())
        except ValidationError as e:
            found += [f"cases.{name}.{fault}" for fault in faults(e, list(known.model_fields))]
    if found:
        raise complain(source, found)
    return dict(list(made.items())[:first])


def create(store: Store, space: str, given: Mapping[str, Svm]) -> None:
    store.create(
        {
            "kind": EXPERIMENT,
            "created": datetime.now(UTC).isoformat(),
            "space": space,
            "method": ", ".join(given),
            "trials": len(given),
            "spec": {KEY: "svm", "cases": {name: asdict(one) for name, one in given.items()}},
            "versions": driver.versions(),
            "revision": driver.revision(),
        }
    )


def run(store: Store) -> list[dict[str, Any]]:
    """Runs the cases that are not done yet; the table of all of them."""
    given = cases(store.document()["spec"], "sweep.json")
    done = {row["number"] for row in store.ended()}
    for number, (name, one) in enumerate(given.items()):
        if number not in done:
            _run(store, number, name, one)
    steps: dict[int, list[dict[str, Any]]] = {}
    for row in store.epochs().to_pylist():
        steps.setdefault(row["number"], []).append(row)
    return [_told(name, one, steps[number]) for number, (name, one) in enumerate(given.items())]


def _run(store: Store, number: int, name: str, one: Svm) -> None:
    key, started, began = digest({"case": name, **asdict(one)}), datetime.now(UTC), perf_counter()
    rows = [_row(number, t + 1, step) for t, step in enumerate(svm.train(one))]
    store.write_epochs(key, rows)
    times = {"started": started, "finished": datetime.now(UTC), "seconds": perf_counter() - began}
    about = {"number": number, "key": key, "method": name, "seed": one.seed, "params": asdict(one), "replay": False}
    store.commit_trial(about | times | {"state": COMPLETE, "revision": driver.revision(), "device": "cpu"})


def _row(number: int, epoch: int, step: Step) -> dict[str, Any]:
    return {"number": number, "epoch": epoch, "train_loss": step.loss, "domination": step.leads, "flips": step.flips}


def _told(name: str, one: Svm, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    leads = [json.loads(row["domination"]) for row in rows]
    leaders = [max(lead, key=lambda player: float(lead[player])) for lead in leads]
    streak, leader = max((len(list(run)), player) for player, run in groupby(leaders))
    late = rows[len(rows) // 2 :]
    low, high = (edge(row["train_loss"] for row in late) for edge in (min, max))
    converges = high - low <= SETTLED * high and not any(row["flips"] for row in late)
    return {
        "case": name,
        "inner": one.inner,
        "theorem 1": one.holds_theorem_1(),
        "leader": leader,
        "steps it leads": f"{streak} of {len(rows)}",
        "of the points": min(lead[leader] for lead, first in zip(leads, leaders, strict=True) if first == leader),
        "flips": median(row["flips"] for row in late),
        "loss": f"{low:.3f} to {high:.3f}",
        "converges": converges,
    }
