"""The trade-off matrix: what fine-tuning on each attack does to the robustness against all (cas-three-phase Sec. 3.3,
Figure 5; cas-bandit Sec. 3.2, Figure 3). A link is one fine-tuning on one attack and its verdicts; what is done stays,
and the same command goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from attacks.errors import InputError
from sweep import driver, engine, priors, trial
from sweep.bits import same, unpack
from sweep.candidates import hashed
from sweep.driver import Where
from sweep.intervals import Floats, bootstrap
from sweep.lease import Lease
from sweep.progress import Progress
from sweep.schema import TRADEOFF
from sweep.spec import TrialBase, digest
from sweep.starting import expect_start, starting_model
from sweep.storage import Storage
from sweep.store import Store
from sweep.tables import PRETRAINED
from sweep.verdicts import Subject, rows
from trainers import checkpoint, loop
from trainers.data import Dataset
from trainers.models import io
from trainers.workers import Workers

INDIVIDUAL, SEQUENTIAL = "individual", "sequential"
MODES = (INDIVIDUAL, SEQUENTIAL)
"""Each link from the starting model, or from the model that the link before it left."""
SPLIT = "val"
TOTAL = "sum"


@dataclass(frozen=True)
class Plan:
    """`base` trains and judges; its attacks, in their order, are the rows and the columns."""

    base: TrialBase
    mode: str
    images: Dataset

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"expected --mode {' or '.join(MODES)}, got {self.mode!r}")
        if len(self.base.attacks) < 2:
            raise InputError(f"expected two attacks or more, got {', '.join(self.base.attacks)}")

    @property
    def document(self) -> dict[str, Any]:
        return {"mode": self.mode, "base": self.base.model_dump(mode="json"), "data": self.images.fingerprint}

    @property
    def matrix_id(self) -> str:
        return f"{TRADEOFF}-{digest(self.document)}"


@dataclass(frozen=True)
class Link:
    """A fine-tuning: on which attack, its place in the order, and the key of its work, which names what it starts
    from."""

    attack: str
    number: int
    key: str


def create(plan: Plan, storage: Storage, matrix_id: str) -> Store:
    """The folder of the matrix: a new one, or the one that an earlier run of the same plan began."""
    expect_start(plan.base, plan.images)
    store, base = Store(storage, matrix_id), plan.base
    if not storage.exists(f"{matrix_id}/sweep.json"):
        document = {
            "kind": TRADEOFF,
            "created": datetime.now(UTC).isoformat(),
            "space": TRADEOFF,
            "method": plan.mode,
            "dataset": base.dataset,
            "fingerprint": plan.images.fingerprint,
            "model": f"{base.model.name}-{base.model.width}",
            "init": base.init,
            "seed": base.seed,
            "trials": len(base.attacks),
            "spec": plan.document,
            "versions": driver.versions(),
            "revision": driver.revision(),
        }
        store.create(document)
    elif store.document().get("spec") != json.loads(json.dumps(plan.document)):
        raise InputError(f"{matrix_id} in {storage.where()} is another matrix: choose another --id, or none")
    return store


def drive(store: Store, plan: Plan, where: Where, progress: Progress) -> None:
    """Trains and judges what is not done yet, then writes the matrix."""
    with Lease(store.folder), engine.cluster(where.address, verbose=where.verbose):
        granted = engine.resources(where.cpus, where.gpus, where.max_concurrent, 1)
        init = starting_model(store, plan.base, plan.images, granted, progress.say)
        images, start = engine.shared(plan.images), engine.shared(init)
        engine.wait([engine.remote(judge_start, granted, store, plan.base, images, start)])

        def follow_up(links: list[Link], began: str | None) -> None:
            started = {engine.remote(follow, granted, store, plan.base, x, began, images, start): x for x in links}
            for link, _ in engine.as_completed(started):
                progress.judged(1, f"trained on {link.attack}")

        links = _links(plan, init)
        with progress.judging(len(links)):
            if plan.mode == INDIVIDUAL:
                follow_up(links, None)
            else:
                for before, link in zip([None, *links], links, strict=False):
                    follow_up([link], before.key if before else None)
    store.write_tradeoff([row for row in effects(store, plan) if row["attack"] != TOTAL])


def _links(plan: Plan, init: bytes) -> list[Link]:
    """In order; the key of a sequential one covers all before it."""
    found: list[Link] = []
    for number, attack in enumerate(plan.base.attacks):
        before = found[-1].key if found and plan.mode == SEQUENTIAL else hashed(init)
        work = on(plan.base, attack).key(init=before, fingerprint=plan.images.fingerprint)
        found.append(Link(attack, number, work))
    return found


def on(base: TrialBase, attack: str) -> TrialBase:
    """The trial that trains on one attack."""
    return type(base).model_validate({**base.model_dump(mode="json"), "train_attacks": [attack]})


def judge_start(store: Store, base: TrialBase, images: Dataset, init: bytes) -> None:
    _judge(store, base, images, Subject(hashed(init), None, PRETRAINED, "live", 0), init, init)


def follow(store: Store, base: TrialBase, link: Link, began: str | None, images: Dataset, init: bytes) -> None:
    """A link, unless it is done: from the starting model, or from the one that the link of the key `began` left."""
    if _is_judged(store, link.key):
        return
    mine = on(base, link.attack)
    files = store.folder.child(f"checkpoints/{link.key}")
    weights = init if began is None else store.folder.read(f"checkpoints/{began}/model.safetensors")
    model, reference = trial.starting(weights), trial.starting(init)
    fitted = loop.fit(
        model,
        images.train.to(trial.device()),
        priors.training_attacks(mine, reference),
        mine.compose(),
        priors.recipe(mine),
        importance={link.attack: 1.0},
        seed=mine.seed,
        files=files,
        report=lambda _, history: _told(store, link, history),
    )
    made = io.dumps(fitted.model)
    files.write("model.safetensors", made)
    checkpoint.clear(files)
    about = Subject(link.key, link.number, link.attack, "live", mine.recipe().epochs)
    _judge(store, base, images, about, made, init)


def _told(store: Store, link: Link, history: list[dict[str, Any]]) -> bool:
    store.write_epochs(link.key, [row | {"number": link.number} for row in history])
    return True


def _is_judged(store: Store, key: str) -> bool:
    return store.judged(f"{key}-{SPLIT}-")


def _judge(store: Store, base: TrialBase, images: Dataset, about: Subject, weights: bytes, init: bytes) -> None:
    if _is_judged(store, about.trial):
        return
    verdicts = trial.judge(base, trial.starting(weights), trial.starting(init), images.val, Workers())
    judged = rows(base, about, SPLIT, images.val, verdicts)
    store.write_results(about.trial, f"{SPLIT}-{about.weights}", judged)


def effects(store: Store, plan: Plan) -> list[dict[str, Any]]:
    """A row for each trained attack and each attack, and for their sum: accuracies before and after, as fractions, the
    difference and its 95 % interval over resampled images. From the stored verdicts."""
    names = plan.base.attacks
    rows = [row for row in store.results().to_pylist() if row["attack"] in names]
    for what in ("images", "protocol"):
        same(rows, what, what)
    by_model: dict[str, dict[str, Floats]] = {}
    for row in rows:
        bits = np.asarray(unpack(row["robust_bits"], row["n"]), np.float64)
        by_model.setdefault(row["method"], {})[row["attack"]] = bits
    found, before = [], by_model[PRETRAINED]
    for trained in names:
        after = by_model[trained]
        pairs = {name: (before[name], after[name]) for name in names}
        pairs[TOTAL] = tuple(np.sum([pair[k] for pair in pairs.values()], axis=0) for k in (0, 1))
        found += [_effect(trained, name, *pair) for name, pair in pairs.items()]
        before = after if plan.mode == SEQUENTIAL else before
    return found


def _effect(trained: str, name: str, before: Floats, after: Floats) -> dict[str, Any]:
    low, high = bootstrap(after[None], before[None])
    means = {"before": float(before.mean()), "after": float(after.mean())}
    difference = means["after"] - means["before"]
    return {"trained_on": trained, "attack": name} | means | {"effect": difference, "low": low, "high": high}


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The matrix as rows and columns, with the sum of each row; the last row sums each column."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["trained_on"], {"trained on": row["trained_on"]})[row["attack"]] = row["effect"]
    columns = [name for name in next(iter(found.values())) if name != "trained on"]
    total = {"trained on": TOTAL} | {name: sum(row[name] for row in found.values()) for name in columns}
    return [*found.values(), total]
