"""What `evaluate` and `calibrate` judge: a file of weights, or a trial of a sweep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from attacks.errors import InputError
from sweep import alternatives
from sweep.spec import TrialBase
from sweep.storage import Storage
from sweep.store import Store
from sweep.tables import PRETRAINED
from sweep.verdicts import Subject
from trainers.models import io

BEST = "best"


@dataclass(frozen=True)
class Candidate:
    """A model to judge: its weights, and those of the model that it was fine-tuned from (its own where it was not).
    `base`: the sweep's trial, for a trial."""

    about: Subject
    weights: bytes
    start: bytes
    init: str
    base: TrialBase | None

    @property
    def architecture(self) -> dict[str, Any]:
        return dict(io.loads(self.weights).architecture)  # type: ignore[arg-type]


def candidates(text: str, storage: Storage) -> list[Candidate]:
    """`text`: a path, or SWEEP/NUMBER, SWEEP/best, SWEEP/pretrained of a sweep in the storage; one a seed."""
    sweep_id, slash, which = text.rpartition("/")
    if (
        slash
        and "/" not in sweep_id
        and not Path(text).expanduser().exists()
        and storage.exists(f"{sweep_id}/sweep.json")
    ):
        return _of_sweep(Store(storage, sweep_id), which)
    weights = io.dumps(io.load(text))
    return [Candidate(Subject(hashed(weights), None, Path(text).stem, "live", 0), weights, weights, text, None)]


def _of_sweep(store: Store, which: str) -> list[Candidate]:
    sweep = alternatives.reload(store.document().get("spec"))
    base, start = sweep.trial, store.folder.read("init.safetensors")
    if which == PRETRAINED:
        return [Candidate(Subject(hashed(start), None, PRETRAINED, "live", 0), start, start, base.init, base)]
    found = configuration(store, which)
    made = []
    for row in found["runs"]:
        trial = sweep.configure(json.loads(found["params"]), row["seed"])
        weights = kept(store, found["number"], row["key"])
        about = Subject(
            row["key"], found["number"], found["method"], store.weights_of(row["key"]), trial.recipe().epochs
        )
        made.append(Candidate(about, weights, start, base.init, base))
    return made


def kept(store: Store, number: int, key: str) -> bytes:
    """The weights that a run left."""
    try:
        return store.folder.read(f"checkpoints/{key}/model.safetensors")
    except FileNotFoundError:
        raise InputError(
            f"the model of trial {number} of {store.sweep_id} is not kept any more (`gc` removes them)"
        ) from None


def configuration(store: Store, which: str) -> dict[str, Any]:
    """A finished configuration by its number, or the best one, as `Store.configurations` has it."""
    done = {str(one["number"]): one for one in sorted(store.configurations(), key=lambda one: int(one["number"]))}
    if which == BEST and (best := store.best()):
        return best
    if which not in done:
        known = ", ".join([PRETRAINED, *([BEST, *done] if done else [])])
        raise InputError(f"expected one of {known} after {store.sweep_id}/, got {which!r}")
    return done[which]


def hashed(weights: bytes) -> str:
    """16 hex digits that name a model."""
    return sha256(weights).hexdigest()[:16]
