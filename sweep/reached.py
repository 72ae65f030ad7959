"""What a model reached on the images that it was judged on, from its `results` rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sweep import goals, tables
from sweep.bits import unpack
from sweep.intervals import Floats
from sweep.store import Row


def value(rows: Iterable[Row]) -> float:
    """What a search maximises unless it is told otherwise: (avg lp + avg semantic) / 2."""
    return _averages(_met(rows))[2]


def metrics(rows: Iterable[Row]) -> dict[str, float]:
    """What else a search may maximise or bound (goals.py): clean accuracy, that under each attack and under all at
    once, image by image, and the averages over the lp and over the semantic attacks, where there are some."""
    met = _met(rows)
    lp, semantic, _ = _averages(met)
    robust = {name: _robust(row) for name, row in met.items()}
    worst = np.minimum.reduce([held for name, held in robust.items() if name != goals.CLEAN])
    found = {goals.LP: lp, goals.SEMANTIC: semantic}
    found |= {name: float(held.mean()) for name, held in (robust | {goals.WORST: worst}).items()}
    return {name: number for name, number in found.items() if number is not None}


def _met(rows: Iterable[Row]) -> dict[str, Row]:
    """By attack, without the stages of some that saw only survivors."""
    return {row["attack"]: row for row in rows if not row["conditional"]}


def _averages(met: dict[str, Row]) -> tuple[float | None, float | None, float]:
    attacked = {name: row for name, row in met.items() if name != goals.CLEAN}
    threats = {name: (row["family"], row["norm"] or name) for name, row in attacked.items()}
    return tables.averages({name: _robust(row) for name, row in attacked.items()}, threats)


def _robust(row: Row) -> Floats:
    return np.asarray(unpack(row["robust_bits"], row["n"]), np.float64)
