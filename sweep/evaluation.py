"""`evaluate`: judges models in units (one attack on one batch), each kept as it is done, on the workers of a cluster.

<storage>/<evaluation-id>/sweep.json            what is judged, and how
                          units/<model>/...     verdicts of what is done; gone when all of it is
                          parquet/results/*     the rows, one file a model
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from attacks.errors import InputError
from sweep import driver, engine, trial
from sweep.candidates import Candidate, hashed
from sweep.driver import Where
from sweep.lease import Lease
from sweep.progress import Progress
from sweep.schema import EVALUATION
from sweep.spec import START, TrialBase, digest
from sweep.storage import Storage
from sweep.store import Store
from sweep.units import CLEAN, Unit, attack_of, judge_unit, kept
from trainers import reliability
from trainers.data import ImageSet
from trainers.evaluate import Judged, Protocol, Verdict, slices, verdicts
from trainers.reliability import Probe


@dataclass(frozen=True)
class Plan:
    """How candidates are judged. `base` holds data set, attacks, budgets, protocol and seed; `checked` the number of
    images on which the evaluation is itself judged, 0 for none."""

    base: TrialBase
    split: str
    images: ImageSet
    candidates: tuple[Candidate, ...]
    checked: int

    @property
    def protocol(self) -> Protocol:
        return self.base.evaluation.resolved()

    @property
    def names(self) -> tuple[str, ...]:
        return self.protocol.names(self.base.attacks)

    @property
    def document(self) -> dict[str, Any]:
        return {
            "trial": self.base.model_dump(mode="json"),
            "split": self.split,
            "images": self.images.fingerprint,
            "models": [(one.about.trial, one.about.method, one.init, hashed(one.start)) for one in self.candidates],
            "checked": self.checked,
        }

    @property
    def evaluation_id(self) -> str:
        return f"{EVALUATION}-{digest(self.document)}"


def create(plan: Plan, storage: Storage, evaluation_id: str) -> Store:
    """The evaluation's folder; the one that is there if it is of the same plan, to go on with it."""
    store, base = Store(storage, evaluation_id), plan.base
    document = {
        "kind": EVALUATION,
        "created": datetime.now(UTC).isoformat(),
        "space": EVALUATION,
        "method": ", ".join(one.about.method for one in plan.candidates),
        "dataset": base.dataset,
        "fingerprint": plan.images.fingerprint,
        "model": f"{base.model.name}-{base.model.width}",
        "init": base.init,
        "seed": base.seed,
        "trials": 0,
        "spec": plan.document,
        "versions": driver.versions(),
        "revision": driver.revision(),
    }
    if not storage.exists(f"{evaluation_id}/sweep.json"):
        store.create(document)
    elif store.document().get("spec") != json.loads(json.dumps(plan.document)):
        raise InputError(f"{evaluation_id} in {storage.where()} judges something else: choose another --id, or none")
    return store


def drive(store: Store, plan: Plan, where: Where, progress: Progress) -> None:
    """Judges what is not judged yet, and writes the rows."""
    missing = [one for one in plan.candidates if not _written(store, one, plan.split)]
    if not missing:
        return
    with Lease(store.folder), engine.cluster(where.address, workers=1, verbose=where.verbose):
        granted = engine.resources(where.cpus, where.gpus, where.max_concurrent, 1)
        images = engine.shared(plan.images)
        total = sum(unit.cost for unit in units(plan)) * len(missing)
        with progress.judging(total):
            for one in missing:
                _judge(store, plan, one, granted, images, progress)


def units(plan: Plan) -> list[Unit]:
    """Clean first. A unit's cost is counted in attack steps times images."""
    n, size = len(plan.images), plan.base.evaluation.batch_size
    found = list(_cut(CLEAN, n, size, 1))
    used = {name: plan.protocol.attack(plan.base.attack(name)) for name in plan.names}
    for name, attack in used.items():
        found += _cut(name, n, size, attack.num_steps * attack.num_restarts)
    if plan.checked:
        for probe in reliability.probes({name: plan.base.attack(name) for name in plan.names}, plan.protocol):
            found += _cut(probe.attack, min(plan.checked, n), size, probe.num_steps, probe)
    return found


def _cut(name: str, n: int, size: int, steps: int, probe: Probe | None = None) -> Iterator[Unit]:
    for rows in slices(n, size):
        yield Unit(name, int(rows[0]), len(rows), steps * len(rows), probe)


def _judge(
    store: Store, plan: Plan, one: Candidate, granted: engine.Resources, images: Any, progress: Progress
) -> None:
    """All units of one model, then its rows."""
    key, weights, start = one.about.trial, engine.shared(one.weights), engine.shared(one.start)
    done: dict[Unit, Judged] = {}
    work = units(plan)
    for stage in ([u for u in work if u.name == CLEAN], [u for u in work if u.name != CLEAN]):
        started = {}
        for unit in stage:
            if (judged := kept(store.folder, unit, key)) is not None:
                done[unit] = judged
                progress.judged(unit.cost, here=False)
                continue
            clean = next((j for u, j in done.items() if u.name == CLEAN and u.first == unit.first), None)
            task = engine.remote(judge_unit, granted, store.folder, key, plan.base, unit, weights, start, images, clean)
            started[task] = unit
        for unit, judged in engine.as_completed(started):
            done[unit] = judged
            progress.judged(unit.cost, f"{one.about.method}: {unit.label}")
    store.write_results(key, f"{plan.split}-{one.about.weights}", _rows(plan, one, done))
    store.folder.delete(f"units/{key}")


def _rows(plan: Plan, one: Candidate, done: dict[Unit, Judged]) -> list[dict[str, Any]]:
    """The `results` rows of one model, with their flags."""
    found: list[Verdict] = []
    used = {name: attack_of(plan.base, Unit(name, 0, 0, 0)) for name in plan.names}
    for name in (CLEAN, *plan.names):
        found += verdicts(name, used.get(name), _of(done, name, None))
    probed = {p: torch.cat([j.robust for j in _of(done, p.attack, p)]) for p in {u.probe for u in done} if p}
    doubts = reliability.doubts(found, used, probed)
    found = [replace(one, flags=tuple(sorted({*one.flags, *doubts[one.attack]}))) for one in found]
    architecture = one.architecture
    model = plan.base.model.model_copy(update={"name": architecture["name"], "width": architecture["width"]})
    base = plan.base.model_copy(update={"model": model, "init": one.init})
    rows = trial.rows(base, one.about, plan.split, plan.images, found)
    if base.features == START:  # then perceptual budgets are comparable only where the same model measures them
        for row in (row for row in rows if row["family"] == "perceptual"):
            row["budget_id"] += f"+{hashed(one.start)}"
    return rows


def _of(done: dict[Unit, Judged], name: str, probe: Probe | None) -> list[Judged]:
    mine = [unit for unit in done if unit.name == name and unit.probe == probe]
    return [done[unit] for unit in sorted(mine, key=lambda unit: unit.first)]


def _written(store: Store, one: Candidate, split: str) -> bool:
    return store.judged(f"{one.about.trial}-{split}-{one.about.weights}.")
