"""What was stored of models' verdicts, image by image: the columns of a table in the form in which two are compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attacks.errors import InputError, unknown
from sweep.bits import same, union, unpack
from sweep.intervals import Floats
from sweep.store import Store
from sweep.tables import AVERAGED, PRETRAINED, STAGE, families

AVERAGES = ("avg_lp", "avg_semantic", "average")
CLEAN = "clean"
MUST_AGREE = {
    "images": "images",
    "n": "numbers of images",
    "protocol": "protocols",
    "budget_id": "budgets",
    "epsilon": "epsilons",
    "num_steps": "numbers of steps",
}
"""What two verdicts must have in common to be compared in pairs, and what it is called."""
_UNION = re.compile(r"union\((.+)\)")
Row = Mapping[str, Any]
Runs = Mapping[str, Mapping[str, Row]]
"""Trial -> attack -> its `results` row."""


@dataclass(frozen=True)
class Judged:
    """A model's verdicts on a split: one run a seed, attack -> its row. All on the same images."""

    runs: tuple[Mapping[str, Row], ...]

    def __post_init__(self) -> None:
        rows = [row for run in self.runs for row in run.values()]
        for field in ("images", "n"):
            same(rows, field, MUST_AGREE[field])

    def attacks(self) -> list[str]:
        """The attacks that every run met, clean among them; stages of an attack are none."""
        met = [name for name in (self.runs[0] if self.runs else {}) if all(name in run for run in self.runs)]
        return [name for name in met if STAGE not in name]

    def scores(self, column: str) -> Floats | None:
        """What each image adds to a column, (seeds, images): `clean`, an attack, avg_lp, avg_semantic, average, or
        union(ATTACK,...); None where the model has none."""
        if together := _UNION.fullmatch(column):
            return self._union([name.strip() for name in together[1].split(",")])
        if column not in AVERAGES:
            return self._bits(column) if column in self.attacks() else None
        threats = {
            name: (row["family"], row["norm"] or name)
            for name, row in ((name, self.runs[0][name]) for name in self.attacks())
            if row["family"] != CLEAN and not row["conditional"]
        }
        groups = families({name: self._bits(name) for name in threats}, threats)
        chosen = [group for group, average in zip(groups, AVERAGES, strict=False) if column in (average, AVERAGES[-1])]
        means = [np.mean(group, axis=0) for group in chosen if group]
        return np.asarray(np.mean(means, axis=0), np.float64) if means else None

    def _bits(self, attack: str) -> Floats:
        return np.asarray([unpack(run[attack]["robust_bits"], run[attack]["n"]) for run in self.runs], np.float64)

    def _union(self, names: Sequence[str]) -> Floats | None:
        if not set(names) <= set(self.attacks()):
            return None
        return np.asarray([union([run[name] for name in names])[2] for run in self.runs], np.float64)


def verdicts(store: Store, split: str, keys: Iterable[str] | None = None) -> Runs:
    """Of each trial, or those of these keys, at its last epoch and of its averaged weights where it has some."""
    chosen = (pc.field("split") == split) & pc.field("robust_bits").is_valid()
    if keys is not None:
        chosen &= pc.field("trial").isin(pa.array(keys, pa.string()))
    latest: dict[str, tuple[tuple[bool, int], dict[str, Row]]] = {}
    for row in store.results().filter(chosen).to_pylist():
        which = row["weights"] == AVERAGED, row["epoch"] or 0
        if row["trial"] not in latest or which > latest[row["trial"]][0]:
            latest[row["trial"]] = which, {}
        if which == latest[row["trial"]][0]:
            latest[row["trial"]][1][row["attack"]] = row
    return {key: rows for key, (_, rows) in latest.items()}


def of(found: Runs, runs: Iterable[Row]) -> Judged | None:
    """The verdicts of the runs of a configuration; None where one of them has none."""
    rows = [found.get(run["key"]) for run in runs]
    return None if not rows or None in rows else Judged(tuple(row for row in rows if row is not None))


def pretrained(found: Runs) -> Judged | None:
    """The verdicts of the starting model."""
    rows = [rows for rows in found.values() if next(iter(rows.values()))["method"] == PRETRAINED]
    return Judged(tuple(rows[:1])) if rows else None


def expect_same(rows: Sequence[Row]) -> None:
    """Refuses verdicts under one attack that cannot be compared in pairs."""
    for field, what in MUST_AGREE.items():
        same(rows, field, what)


def expect_column(column: str, models: Iterable[Judged]) -> None:
    """Refuses a column that no model has."""
    known = dict.fromkeys([CLEAN, *AVERAGES])
    for model in models:
        if model.scores(column) is not None:
            return
        known |= dict.fromkeys(model.attacks())
    raise unknown("column", column, [*known, "union(ATTACK,...)"])


def expect_results(store: Store, split: str, found: Runs) -> None:
    if not found:
        splits = sorted(set(store.results().column("split").to_pylist()))
        has = ", ".join(splits) or "none"
        raise InputError(f"sweep {store.sweep_id} has no results on split {split!r}: it has {has}")
