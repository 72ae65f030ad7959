"""`evaluate`: judges models in units (one attack on one batch), each kept as it is done, on the workers of a cluster.

<storage>/<evaluation-id>/sweep.json            what is judged, and how
                          units/<model>/...     verdicts of what is done; gone when all of it is
                          parquet/results/*     the rows, one file a model
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import torch

from attacks.errors import InputError
from sweep import driver, engine, examples
from sweep.candidates import Candidate, hashed
from sweep.driver import Where
from sweep.lease import Lease
from sweep.progress import Progress
from sweep.schema import EVALUATION
from sweep.spec import START, TrialBase, digest, evaluation_base
from sweep.storage import Storage
from sweep.store import Store
from sweep.units import CLEAN, Unit, attack_of, judge_unit, kept
from sweep.verdicts import rows
from trainers import reliability
from trainers.data import ImageSet
from trainers.evaluate import Judged, Protocol, Verdict, slices, verdicts
from trainers.reliability import Probe
from trainers.worst import Broken, worst


@dataclass(frozen=True)
class Plan:
    """How candidates are judged. `base` holds data set, attacks, budgets, protocol and seed; `checked` the number of
    images on which the evaluation is itself judged, 0 for none. `base` has the budgets already times `scale`."""

    base: TrialBase
    split: str
    images: ImageSet
    candidates: tuple[Candidate, ...]
    checked: int
    scale: float = 1.0

    def scaled(self, scale: float) -> Plan:
        """This plan with every attack's epsilon so many times as large; refused where an attack cannot have it."""
        if scale == self.scale:
            return self
        epsilons = {name: self.base.attack(name).epsilon * scale / self.scale for name in self.names}
        document = self.base.model_dump(mode="json")
        base = evaluation_base(document | {"epsilons": {**document["epsilons"], **epsilons}})
        return replace(self, base=base, scale=scale)

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
        "scale": plan.scale,
        "versions": driver.versions(),
        "revision": driver.revision(),
    }
    if not storage.exists(f"{evaluation_id}/sweep.json"):
        store.create(document)
    elif store.document().get("spec") != json.loads(json.dumps(plan.document)):
        raise InputError(f"{evaluation_id} in {storage.where()} judges something else: choose another --id, or none")
    return store


def drive(work: Sequence[tuple[Store, Plan]], where: Where, progress: Progress) -> None:
    """Judges what is not judged yet, and writes the rows. All plans are on the same images."""
    left = [(store, plan, one) for store, plan in work for one in plan.candidates if not _written(store, one, plan)]
    if not left:
        return
    with ExitStack() as held:
        for store in dict.fromkeys(store for store, *_ in left):
            held.enter_context(Lease(store.folder))
        held.enter_context(engine.cluster(where.address, verbose=where.verbose))
        granted = engine.resources(where.cpus, where.gpus, where.max_concurrent, 1)
        images = engine.shared(left[0][1].images)
        held.enter_context(progress.judging(sum(unit.cost for _, plan, _ in left for unit in units(plan))))
        for store, plan, one in left:
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
    for part in slices(n, size):
        yield Unit(name, int(part[0]), len(part), steps * len(part), probe)


def _judge(
    store: Store, plan: Plan, one: Candidate, granted: engine.Resources, images: Any, progress: Progress
) -> None:
    """All units of one model, then its rows."""
    key, weights, start = one.about.trial, engine.shared(one.weights), engine.shared(one.start)
    done, work, keep = _Done(), units(plan), plan.split == examples.SPLIT
    for stage in ([u for u in work if u.name == CLEAN], [u for u in work if u.name != CLEAN]):
        started = {}
        for unit in stage:
            if (judged := kept(store.folder, unit, key)) is not None:
                done.add(unit, judged)
                progress.judged(unit.cost, here=False)
                continue
            given = (store.folder, key, plan.base, unit, weights, start, images, done.clean(unit), keep)
            started[engine.remote(judge_unit, granted, *given)] = unit
        for unit, judged in engine.as_completed(started):
            done.add(unit, judged)
            progress.judged(unit.cost, f"{one.about.method}: {unit.label}")
    found, name = _verdicts(plan, done), f"{plan.split}-{one.about.weights}"
    if keep:
        store.write_examples(key, name, examples.rows(one.about, plan.base.seed, found))
    store.write_results(key, name, _rows(plan, one, found))
    store.folder.delete(f"units/{key}")


@dataclass
class _Done:
    """What is judged of one model; of the worst images of an attack, those of all its units so far."""

    judged: dict[Unit, Judged] = field(default_factory=dict)
    worst: dict[str, tuple[Broken, ...]] = field(default_factory=dict)

    def add(self, unit: Unit, judged: Judged) -> None:
        self.worst[unit.name] = worst((*self.worst.get(unit.name, ()), *judged.worst))
        self.judged[unit] = replace(judged, worst=())

    def clean(self, unit: Unit) -> Judged | None:
        """The clean verdicts of a unit's images."""
        return next((j for u, j in self.judged.items() if u.name == CLEAN and u.first == unit.first), None)

    def of(self, name: str, probe: Probe | None) -> list[Judged]:
        mine = [unit for unit in self.judged if unit.name == name and unit.probe == probe]
        return [self.judged[unit] for unit in sorted(mine, key=lambda unit: unit.first)]


def _verdicts(plan: Plan, done: _Done) -> list[Verdict]:
    """The verdicts on one model, with their flags and the worst images."""
    found: list[Verdict] = []
    used = {name: attack_of(plan.base, Unit(name, 0, 0, 0)) for name in plan.names}
    for name in (CLEAN, *plan.names):
        found += verdicts(name, used.get(name), done.of(name, None))
    probed = {p: torch.cat([j.robust for j in done.of(p.attack, p)]) for p in {u.probe for u in done.judged} if p}
    doubts = reliability.doubts(found, used, probed)
    return [
        replace(v, flags=tuple(sorted({*v.flags, *doubts[v.attack]})), worst=done.worst.get(v.attack, ()))
        for v in found
    ]


def _rows(plan: Plan, one: Candidate, found: list[Verdict]) -> list[dict[str, Any]]:
    """The `results` rows of one model."""
    architecture = one.architecture
    model = plan.base.model.model_copy(update={"name": architecture["name"], "width": architecture["width"]})
    base = plan.base.model_copy(update={"model": model, "init": one.init})
    judged = rows(base, one.about, plan.split, plan.images, found)
    if base.features == START:  # then perceptual budgets are comparable only where the same model measures them
        for row in (row for row in judged if row["family"] == "perceptual"):
            row["budget_id"] += f"+{hashed(one.start)}"
    return judged


def _written(store: Store, one: Candidate, plan: Plan) -> bool:
    return store.judged(f"{one.about.trial}-{plan.split}-{one.about.weights}.")
