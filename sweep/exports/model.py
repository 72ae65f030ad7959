"""A model of a sweep with all that its folder says of it: whence it came, and what it withstood."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any

from attacks.errors import InputError
from sweep import alternatives
from sweep.bits import union
from sweep.candidates import configuration, hashed, kept
from sweep.exports import Asked
from sweep.exports.places import MADE_BY
from sweep.exports.runs import averages, last
from sweep.intervals import bootstrap, wilson
from sweep.spec import TrialBase
from sweep.status import sound
from sweep.store import Store
from sweep.tables.columns import scores
from sweep.tables.models import PRETRAINED
from trainers.models import io
from trainers.sources import source

Row = Mapping[str, Any]
SPLITS = ("test", "val")
"""The first on which the model was judged is the one that is told of."""


@dataclass(frozen=True)
class Model:
    """The model of one run, or the one that the runs started from. `run`: its row of `trials`, or None; `rows` and
    `before`: the `results` rows of it and of the starting model, on the split that is told of."""

    store: Store
    weights: bytes
    key: str
    trial: TrialBase
    run: Row | None
    rows: list[Row]
    before: list[Row]

    @property
    def name(self) -> str:
        which = f"{self.run['number']}-seed{self.run['seed']}" if self.run else PRETRAINED
        return f"{self.store.sweep_id}-{which}"

    @property
    def method(self) -> str:
        return str(self.run["method"]) if self.run else PRETRAINED

    @property
    def architecture(self) -> dict[str, Any]:
        return dict(io.loads(self.weights).architecture)  # type: ignore[arg-type]


def chosen(asked: Asked) -> Model:
    """The model that is asked for: of several seeds the one named, or else the one of the best value."""
    store = asked.store
    sweep = alternatives.reload(sound(store)["spec"])
    if asked.which is None:
        raise InputError(f"expected one model, {store.sweep_id}/NUMBER, /best or /{PRETRAINED}, got the whole sweep")
    start = _start(store)
    if asked.which == PRETRAINED:
        if asked.seed is not None:
            raise InputError(f"{PRETRAINED} is one model: expected no --seed, got {asked.seed}")
        rows = _judged(store, hashed(start))
        return Model(store, start, hashed(start), sweep.trial, None, rows, rows)
    run = _run(configuration(store, asked.which)["runs"], asked.seed)
    weights = kept(store, run["number"], run["key"])
    trial = sweep.configure(json.loads(run["params"]), run["seed"])
    rows = _judged(store, run["key"])
    split = rows[0]["split"] if rows else None
    before = [row for row in _judged(store, hashed(start)) if row["split"] == split]
    return Model(store, weights, run["key"], trial, run, rows, before)


def _run(runs: Sequence[Row], seed: int | None) -> Row:
    if seed is None:
        return max(runs, key=lambda run: (run["value"], -run["seed"]))
    for run in runs:
        if run["seed"] == seed:
            return run
    raise InputError(f"expected --seed to be one of {', '.join(str(run['seed']) for run in runs)}, got {seed}")


def _start(store: Store) -> bytes:
    try:
        return store.folder.read("init.safetensors")
    except FileNotFoundError:
        raise InputError(
            f"{store.sweep_id} has no starting model yet: {store.folder.where('init.safetensors')}"
        ) from None


def _judged(store: Store, key: str) -> list[Row]:
    """A model's last verdicts, on the first of the splits."""
    rows = last([row for row in store.results().to_pylist() if row["trial"] == key])
    held = {row["split"] for row in rows}
    return [row for row in rows if row["split"] == next(split for split in SPLITS if split in held)]


_TOLD = ("attack", "family", "norm", "epsilon", "num_steps", "protocol", "n", "n_robust", "robust_accuracy", "flags")


def accuracies(model: Model) -> list[dict[str, Any]]:
    """One row an attack, clean first: the fraction with Wilson's 95 % interval, and `before`, the starting model's."""
    before = {row["attack"]: row["robust_accuracy"] for row in model.before}
    found = []
    for row in sorted(model.rows, key=lambda row: row["family"] != "clean"):
        low, high = wilson(row["n_robust"], row["n"])
        interval = {"low": low, "high": high}
        found.append({name: row[name] for name in _TOLD} | interval | {"before": before.get(row["attack"])})
    return found


def summary(model: Model) -> list[dict[str, Any]]:
    """The averages that a search goes by and the union of all attacks, with 95 % intervals over the images."""
    means = averages(model.rows)
    if not means:
        return []
    met = [row for row in model.rows if not row["conditional"]]
    low, high = bootstrap(scores(model.store, met[0]["split"])[model.key])
    robust, n, _ = union(met)
    found = [{"name": name, "accuracy": mean} for name, mean in means.items()]
    found[-1] |= {"low": low, "high": high}
    low, high = wilson(robust, n)
    return [*found, {"name": "union", "accuracy": robust / n, "low": low, "high": high}]


def config(model: Model) -> dict[str, Any]:
    """config.json: what the model is, what it was trained and judged on, and with which settings."""
    architecture = model.architecture
    return MADE_BY | {
        "architecture": architecture,
        "normalisation": {"mean": architecture["mean"], "std": architecture["std"], "inside_the_model": True},
        "data": _data(model),
        "attacks": {name: _knobs(model.trial, name) for name in model.trial.attacks},
        "settings": model.trial.model_dump(mode="json"),
        "searched": json.loads(model.run["params"]) if model.run else {},
        "provenance": provenance(model),
        "split": model.rows[0]["split"] if model.rows else None,
        "images": model.rows[0]["images"] if model.rows else None,
        "accuracies": accuracies(model),
        "averages": summary(model),
    }


def _data(model: Model) -> dict[str, Any]:
    trial = model.trial
    about = source(trial.dataset)
    sizes = {name: getattr(trial, name) for name in ("train_size", "eval_size", "test_size", "split_seed")}
    return {
        "load": {"name": trial.dataset} | sizes,  # sweep.datasets.load takes these
        "repository": about.repository,
        "num_classes": about.num_classes,
        "shape": list(about.shape),
        "range": [0, 1],
        "fingerprint": model.store.document()["fingerprint"],
    }


def _knobs(trial: TrialBase, name: str) -> dict[str, Any]:
    """An attack's budget and settings, as it is evaluated."""
    attack = trial.evaluation.resolved().attack(trial.attack(name))
    held = {field.name: getattr(attack, field.name) for field in fields(attack)}
    plain = {key: value for key, value in held.items() if isinstance(value, str | bool | int | float)}
    return {"family": attack.family, "norm": attack.norm} | plain


def provenance(model: Model) -> dict[str, Any]:
    document, run = model.store.document(), model.run or {}
    shown = ("number", "seed", "value", "seconds", "started", "finished", "device")
    return {
        "sweep": model.store.sweep_id,
        "key": model.key,
        "method": model.method,
        **{name: run[name] for name in shown if name in run},
        "weights": model.rows[0]["weights"] if model.rows else "live",
        "starting_model": model.trial.init,
        "sha256": sha256(model.weights).hexdigest(),
        "revision": run.get("revision") or document["revision"],
        "versions": document["versions"],
    }
