"""Tables of a sweep from its stored verdicts: accuracies, averages, exact unions, intervals. No attack runs again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attacks.errors import InputError, unknown
from sweep.bits import same, union, unpack
from sweep.intervals import Floats, bootstrap, percentiles, resample, wilson
from sweep.settings import METHOD
from sweep.store import Store

PRETRAINED = "pretrained"
REPLAY = " (replay)"
"""After a method's name: a control of it."""
AVERAGED = "averaged"
STAGE = "/"
"""In the name of a stage: attack/stage."""
_FAMILIES = {"clean": 0, "lp": 1, "perceptual": 2, "semantic": 3}
_WHOLE = {"images": "images", "n": "numbers of images"}  # of the whole table
_EACH = {"protocol": "protocols", "budget_id": "budgets", "epsilon": "epsilons", "num_steps": "numbers of steps"}
Row = Mapping[str, Any]
Cells = dict[str, Any]


def table(
    store: Store,
    split: str = "test",
    attacks: Sequence[str] = (),
    *,
    intervals: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Cells]:
    """One row per configuration and kind of weights, the pre-trained model first, then the best average first.

    Columns: number, method, weights, seeds (runs averaged), clean, each attack, avg_lp, avg_semantic, average with its
    interval and, where there are several seeds, its standard deviation over them (`std`), gain over the pre-trained
    model with its interval, the union of `attacks` where some are named, and the flags of doubtful verdicts where there
    are any; `settings`, where several configurations have the same method.
    Accuracies are fractions; the last epoch of each run counts. Intervals of averages and gains resample images and
    seeds together, the same images for all models; `intervals` adds one for clean, each attack and the union:
    Wilson's, or with several seeds a resampled one. Refused where rows differ in images, or in an attack's protocol,
    budget or steps. A model that did not meet every attack has no average.
    """
    models = _models(_rows(store, split))
    names = _attack_names(models)
    for name in attacks:
        if name not in names:
            raise unknown("attack", name, names)
    _check_comparable(models, names)
    each = _Each(tuple(names), tuple(attacks), level if intervals else None)
    rows = [each.cells(model) for model in models]
    whole = [(model, row) for model, row in zip(models, rows, strict=True) if model.averaged(names)]
    if whole:
        means = resample([model.scores(names) for model, _ in whole], resamples, seed)
        for (model, row), mean in zip(whole, means, strict=True):
            row |= _average_cells(model, names, mean, level)
        _add_gains([row for _, row in whole], means, level)
    if all(len(model.runs) == 1 for model in models):
        rows = [{name: cell for name, cell in row.items() if name != "std"} for row in rows]
    if settings := _told_apart(store, models):
        rows = [row | {"settings": settings.get(row["number"], "")} for row in rows]
    if any(flagged := [model.flags() for model in models]):
        rows = [row | {"flags": flags} for row, flags in zip(rows, flagged, strict=True)]
    return sorted(rows, key=lambda row: (row["method"] != PRETRAINED, -(row["average"] or 0.0), row["number"] or 0))


def scores(store: Store, split: str) -> dict[str, Floats]:
    """Trial -> what each image adds to its value, (1, images): at its last epoch, with its averaged weights where it
    has some. A trial that met no attack on the split is left out."""
    rows = sorted(store.results().to_pylist(), key=lambda row: row["weights"] == AVERAGED)
    judged = [row for row in rows if row["split"] == split and row["robust_bits"] is not None]
    models = ((key, _Model(None, "", "", [run])) for (*_, key), run in _last(judged).items())
    return {key: model.scores(list(model.runs[0])) for key, model in models if model.averaged(list(model.runs[0]))}


def _told_apart(store: Store, models: Sequence[_Model]) -> dict[int | None, str]:
    """Number -> the values at its searched addresses, where the method's name is not enough."""
    numbers: dict[str, set[int | None]] = {}
    for model in models:
        numbers.setdefault(model.method, set()).add(model.number)
    if all(len(held) == 1 for held in numbers.values()):
        return {}
    params = {row["number"]: json.loads(row["params"]) for row in store.trials().to_pylist()}
    return {
        number: ", ".join(f"{address}={value}" for address, value in held.items() if address != METHOD)
        for number, held in params.items()
    }


def fractions(rows: Iterable[Row]) -> set[str]:
    """The columns of a table that hold accuracies or their differences, for render.show's `percent`."""
    return {name for row in rows for name in row} - {"number", "method", "weights", "seeds", "flags", "settings"}


Threat = tuple[str, str]
"""An attack's family, and what it bounds: its norm, or, where it bounds none, its own name."""


def averages(robust: Mapping[str, Floats], threats: Mapping[str, Threat]) -> tuple[float | None, float | None, float]:
    """(avg lp, avg semantic, their mean) of attack -> verdicts, 0.0 or 1.0; perceptual counts as semantic.

    A norm counts once: robust in it is what survives all of its attacks. A family that was not attacked has no average
    (None), and the other one is then the mean. ValueError for neither.
    """
    means = [float(np.mean(group)) if group else None for group in families(robust, threats)]
    held = [mean for mean in means if mean is not None]
    if not held:
        raise ValueError("expected an lp, semantic or perceptual attack")
    return means[0], means[1], float(np.mean(held))


def families(robust: Mapping[str, Floats], threats: Mapping[str, Threat]) -> tuple[list[Floats], list[Floats]]:
    """The verdicts threat by threat: the lp norms', then the others'."""
    groups: dict[Threat, Floats] = {}
    for name, verdicts in robust.items():
        before = groups.get(threats[name])
        groups[threats[name]] = verdicts if before is None else np.asarray(before * verdicts)
    lp = [verdicts for (family, _), verdicts in groups.items() if family == "lp"]
    return lp, [verdicts for (family, _), verdicts in groups.items() if family in ("semantic", "perceptual")]


@dataclass(frozen=True)
class _Model:
    """One configuration with one kind of weights; runs: one per seed, attack -> its row."""

    number: int | None  # none: no trial's, as the pre-trained model
    method: str
    weights: str
    runs: list[dict[str, Row]]

    def met(self, names: Iterable[str]) -> bool:
        return all(name in run for name in names for run in self.runs)

    def bits(self, attack: str) -> Floats:
        """Verdicts (seeds, images) as 0.0 and 1.0."""
        rows = [run[attack] for run in self.runs]
        return np.asarray([unpack(row["robust_bits"], row["n"]) for row in rows], np.float64)

    def averaged(self, names: Sequence[str]) -> dict[str, Threat]:
        """Attack -> threat of what enters the averages; empty where an attack was not met."""
        found = {name: row for name, row in self.runs[0].items() if self.met(names)}
        return {
            name: (row["family"], row["norm"] or name)
            for name, row in found.items()
            if row["family"] != "clean" and not row["conditional"]
        }

    def scores(self, names: Sequence[str]) -> Floats:
        """What each image adds to the average, (seeds, images)."""
        threats = self.averaged(names)
        by_family = families({name: self.bits(name) for name in threats}, threats)
        return np.asarray(np.mean([np.mean(group, axis=0) for group in by_family if group], axis=0))

    def flags(self) -> str:
        """The reasons to doubt its verdicts, and the attacks concerned."""
        found: dict[str, list[str]] = {}
        for name, row in self.runs[0].items():
            for flag in row["flags"] or []:
                found.setdefault(flag, []).append(name)
        return "; ".join(f"{flag} ({', '.join(names)})" for flag, names in sorted(found.items()))


@dataclass(frozen=True)
class _Each:
    """The cells that a model has by itself; `level` of their intervals, None for none."""

    names: tuple[str, ...]
    union: tuple[str, ...]
    level: float | None

    def cells(self, model: _Model) -> Cells:
        row: Cells = {"number": model.number, "method": model.method, "weights": model.weights}
        row["seeds"] = len(model.runs)
        for name in self.names:
            row |= self._cell(name, model.bits(name) if model.met([name]) else None)
        row |= dict.fromkeys(("avg_lp", "avg_semantic"))
        row |= _with_interval("average", None, (None, None)) | {"std": None}
        row |= _with_interval("gain", None, (None, None))
        if self.union:
            row |= self._cell(
                f"union({','.join(self.union)})", self._together(model) if model.met(self.union) else None
            )
        return row

    def _together(self, model: _Model) -> Floats:
        return np.asarray([union([run[name] for name in self.union])[2] for run in model.runs], np.float64)

    def _cell(self, name: str, bits: Floats | None) -> Cells:
        mean = None if bits is None else float(bits.mean())
        if self.level is None:
            return {name: mean}
        if bits is None:
            return _with_interval(name, None, (None, None))
        one = len(bits) == 1
        return _with_interval(
            name, mean, wilson(int(bits.sum()), bits.size, self.level) if one else bootstrap(bits, level=self.level)
        )


def _average_cells(model: _Model, names: Sequence[str], means: Floats, level: float) -> Cells:
    threats = model.averaged(names)
    found = averages({name: model.bits(name) for name in threats}, threats)
    each = model.scores(names).mean(1)
    spread = {"std": float(each.std(ddof=1)) if len(each) > 1 else None}
    interval = _with_interval("average", found[2], percentiles(means, level))
    return {"avg_lp": found[0], "avg_semantic": found[1]} | interval | spread


def _add_gains(rows: Sequence[Cells], means: Floats, level: float) -> None:
    """Puts into each row but the pre-trained model's own what it gained over that."""
    base = next((k for k, row in enumerate(rows) if row["method"] == PRETRAINED), None)
    for k, row in enumerate(rows):
        if base is not None and k != base:
            interval = percentiles(means[k] - means[base], level)
            row |= _with_interval("gain", row["average"] - rows[base]["average"], interval)


def _with_interval(name: str, value: float | None, interval: tuple[float | None, float | None]) -> Cells:
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _rows(store: Store, split: str) -> list[Cells]:
    store.document()  # an unknown sweep says so
    rows: list[Cells] = store.results().to_pylist()
    if found := [row for row in rows if row["split"] == split and row["robust_bits"] is not None]:
        return _of_all_runs(store, found)
    splits = sorted({str(row["split"]) for row in rows})
    raise InputError(f"sweep {store.sweep_id} has no results on split {split!r}: it has {', '.join(splits) or 'none'}")


def _of_all_runs(store: Store, rows: Iterable[Cells]) -> list[Cells]:
    """The rows of each run: equal work was done once, under the number of the first that asked for it."""
    runs: dict[str, list[Cells]] = {}
    for run in store.ended():
        method = run["method"] + (REPLAY if run["replay"] else "")
        runs.setdefault(run["key"], []).append({"number": run["number"], "method": method})
    return [row | run for row in rows for run in runs.get(row["trial"], [{}])]


def _models(rows: Iterable[Row]) -> list[_Model]:
    """Rows by configuration and weights, each run at its last epoch."""
    models: dict[tuple[Any, ...], _Model] = {}
    for (number, method, weights, _), run in _last(rows).items():
        model = models.setdefault((number, method, weights), _Model(number, method, weights, []))
        model.runs.append(run)
    return list(models.values())


def _last(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """(number, method, weights, trial) -> attack -> its row, at the last epoch."""
    runs: dict[tuple[Any, ...], dict[int, dict[str, Row]]] = {}
    for row in rows:
        who = (row["number"], row["method"], row["weights"], row["trial"])
        runs.setdefault(who, {}).setdefault(row["epoch"] or 0, {})[row["attack"]] = row
    return {who: epochs[max(epochs)] for who, epochs in runs.items()}


def _attack_names(models: Iterable[_Model]) -> list[str]:
    """Every attack, family by family, in the order they were stored; stages of an attack are no columns."""
    rows = {name: row for model in models for run in model.runs for name, row in run.items()}
    families = {name: row["family"] for name, row in rows.items() if STAGE not in name}
    return sorted(families, key=lambda name: _FAMILIES.get(families[name], len(_FAMILIES)))


def _check_comparable(models: Iterable[_Model], names: Iterable[str]) -> None:
    runs = [run for model in models for run in model.runs]
    for field, what in _WHOLE.items():
        same([row for run in runs for row in run.values()], field, what)
    for name in names:
        for field, what in _EACH.items():
            same([run[name] for run in runs if name in run], field, what)
