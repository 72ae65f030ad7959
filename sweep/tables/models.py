"""The models that a sweep judged, with their verdicts at their last epoch, read from its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attacks.errors import InputError
from sweep.bits import expect_union, same
from sweep.intervals import Floats
from sweep.store import COMPLETE, Store
from sweep.tables.averages import Threat, averaged

PRETRAINED = "pretrained"
REPLAY = " (replay)"
"""After a method's name: a control of it."""
AVERAGED = "averaged"
STAGE = "/"
"""In the name of a stage: attack/stage."""
CLEAN = "clean"
_ABOUT = ("trial", "number", "method", "dataset", "model", "seed", "weights", "epoch", "split")
_VERDICT = ("attack", "family", "norm", "epsilon", "num_steps", "protocol", "n", "images", "budget_id", "conditional")
_COLUMNS = (*_ABOUT, *_VERDICT, "flags", "robust_bits")
_FAMILIES = {"clean": 0, "lp": 1, "perceptual": 2, "semantic": 3}
_WHOLE = {"images": "images", "n": "numbers of images"}  # of all rows
_EACH = {"protocol": "protocols", "budget_id": "budgets", "epsilon": "epsilons", "num_steps": "numbers of steps"}
Row = Mapping[str, Any]
Cells = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """One configuration with one kind of weights; runs: one per seed, attack -> its row of `results`, with the verdicts
    (images,) under `robust`."""

    sweep: str
    number: int | None  # none: no trial's, as the pre-trained model
    method: str
    weights: str
    runs: list[dict[str, Row]]

    @property
    def images(self) -> int:
        return int(next(iter(self.runs[0].values()))["n"])

    def met(self, names: Iterable[str]) -> bool:
        return all(name in run for name in names for run in self.runs)

    def robust(self, attack: str) -> Floats:
        """Verdicts (seeds, images) as 0.0 and 1.0."""
        return np.asarray([run[attack]["robust"] for run in self.runs], np.float64)

    def expect_union(self, names: Sequence[str]) -> None:
        """Refuses attacks that have no union, as bits.union does."""
        for run in self.runs:
            expect_union([run[name] for name in names])

    def together(self, names: Sequence[str]) -> Floats:
        """The exact union, image by image: robust against each of them."""
        self.expect_union(names)
        each = [np.logical_and.reduce([run[name]["robust"] for name in names]) for run in self.runs]
        return np.asarray(each, np.float64)

    def threats(self, names: Iterable[str]) -> dict[str, Threat]:
        """Attack -> threat of what enters the averages; empty where one of these attacks was not met."""
        found = self.runs[0] if self.met(names) else {}
        return {
            name: (row["family"], row["norm"] or name)
            for name, row in found.items()
            if row["family"] != CLEAN and not row["conditional"]
        }

    def averages(self, names: Iterable[str], formula: str) -> dict[str, Floats]:
        """What each image adds to each average, (seeds, images); none where an attack was not met."""
        threats = self.threats(names)
        return averaged({name: self.robust(name) for name in threats}, threats, formula) if threats else {}

    def flags(self) -> str:
        """The reasons to doubt its verdicts, and the attacks concerned."""
        found: dict[str, list[str]] = {}
        for name, row in self.runs[0].items():
            for flag in row["flags"] or []:
                found.setdefault(flag, []).append(name)
        return "; ".join(f"{flag} ({', '.join(names)})" for flag, names in sorted(found.items()))


def nothing_on(store: Store, split: str, trials: Sequence[Row]) -> InputError:
    """That no model of the sweep was judged on the split, and on which some were."""
    known = {str(name) for name in store.results(["split"]).column("split").unique().to_pylist()}
    splits = sorted(name for name in known if read(store, name, trials))
    return InputError(f"sweep {store.sweep_id} has no results on split {split!r}: it has {', '.join(splits) or 'none'}")


def read(store: Store, split: str, trials: Iterable[Row]) -> list[Model]:
    """The models judged on the split. `trials`: the sweep's runs; equal work was done once, under the number of the
    first that asked for it, and is given to each here. One that is not COMPLETE has none, though its epochs may have
    been judged."""
    runs: dict[str, list[Cells]] = {}
    for run in trials:
        method, found = f"{run['method']}{REPLAY if run['replay'] else ''}", runs.setdefault(run["key"], [])
        if run["state"] == COMPLETE:
            found.append({"number": run["number"], "method": method})
    models: dict[tuple[Any, ...], Model] = {}
    for (trial, weights), verdicts in last(store, split).items():
        about = next(iter(verdicts.values()))
        for who in runs.get(trial, [{"number": about["number"], "method": about["method"]}]):
            made = Model(store.sweep_id, who["number"], who["method"], weights, [])
            models.setdefault((*who.values(), weights), made).runs.append(verdicts)
    return list(models.values())


def last(store: Store, split: str) -> dict[tuple[str, str], dict[str, Row]]:
    """(trial, weights) -> attack -> its row, at the last epoch judged on the split."""
    here = (pc.field("split") == split) & pc.field("robust_bits").is_valid()
    ends = (
        store.results(["trial", "weights", "epoch"], here).group_by(["trial", "weights"]).aggregate([("epoch", "max")])
    )
    at = {(row["trial"], row["weights"]): row["epoch_max"] for row in ends.to_pylist()}
    if not at:
        return {}
    rows = store.results(_COLUMNS, here & _any_of(at)).to_pylist()
    rows = [row for row in rows if row["epoch"] == at[row["trial"], row["weights"]]]
    _unpack(store, rows)
    runs: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        runs.setdefault((row["trial"], row["weights"]), {})[row["attack"]] = row
    return runs


def _any_of(ends: Mapping[tuple[str, str], int | None]) -> pc.Expression:
    """True of the rows of a trial at an epoch that is the last of one of its kinds of weights."""
    trials: dict[int | None, list[str]] = {}
    for (trial, _), epoch in ends.items():
        trials.setdefault(epoch, []).append(trial)
    field = pc.field("epoch")
    return reduce(
        or_,
        (
            (field.is_null() if epoch is None else field == epoch) & pc.field("trial").isin(pa.array(keys))
            for epoch, keys in trials.items()
        ),
    )


def _unpack(store: Store, rows: Sequence[Cells]) -> None:
    """Puts the verdicts into the rows, all those of a length at once."""
    lengths: dict[int, list[Cells]] = {}
    for row in rows:
        if not row["n"] or len(row["robust_bits"]) != (row["n"] + 7) // 8:
            raise InputError(
                f"results of {store.sweep_id} are damaged: {row['attack']} of {row['trial']} has no verdicts"
            )
        lengths.setdefault(row["n"], []).append(row)
    for n, held in lengths.items():
        packed = np.frombuffer(b"".join(row.pop("robust_bits") for row in held), np.uint8).reshape(len(held), -1)
        for row, robust in zip(held, np.unpackbits(packed, axis=1, count=n).view(np.bool_), strict=True):
            row |= {"robust": robust, "sweep_id": store.sweep_id}


def attack_names(models: Iterable[Model]) -> list[str]:
    """Every attack, family by family, in the order they were stored; stages of an attack are no columns."""
    rows = {name: row for model in models for run in model.runs for name, row in run.items()}
    families = {name: row["family"] for name, row in rows.items() if STAGE not in name}
    return sorted(families, key=lambda name: _FAMILIES.get(families[name], len(_FAMILIES)))


def expect_comparable(models: Iterable[Model], names: Iterable[str]) -> None:
    """Refuses models that differ in images, or in an attack's protocol, budget or steps."""
    runs = [run for model in models for run in model.runs]
    for field, what in _WHOLE.items():
        same([row for run in runs for row in run.values()], field, what)
    for name in names:
        for field, what in _EACH.items():
            same([run[name] for run in runs if name in run], field, what)
