"""The runs of a sweep as trackers know them: settings, curves over the epochs, final numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.bits import unpack
from sweep.store import COMPLETE, Store
from sweep.tables.averages import averaged
from sweep.tables.models import AVERAGED, PRETRAINED, REPLAY, STAGE

Row = Mapping[str, Any]
_PLACES = {"sweep_id", "trial", "number", "epoch"}
"""Columns of `epochs` that say whose numbers they are."""


@dataclass(frozen=True)
class Run:
    """`row`: its row of `trials`; `epochs` in order; `results`: its verdicts at the last epoch."""

    row: Row
    epochs: list[Row]
    results: list[Row]

    @property
    def method(self) -> str:
        return str(self.row["method"]) + (REPLAY if self.row["replay"] else "")

    @property
    def id(self) -> str:
        """Its name within the sweep for a program: it stays when a method is called otherwise."""
        if self.row["number"] is None:
            return PRETRAINED
        return f"{self.row['number']}-{self.row['seed']}" + ("-replay" if self.row["replay"] else "")

    @property
    def name(self) -> str:
        """For a person, and for a folder."""
        if self.row["number"] is None:
            return PRETRAINED
        method = re.sub(r"[^\w.+=-]", "_", self.row["method"])
        control = "-replay" if self.row["replay"] else ""
        return f"{self.row['number']:03d}-{method}-seed{self.row['seed']}{control}"

    @property
    def params(self) -> dict[str, Any]:
        """The values at the searched addresses, the method and the seed."""
        found: dict[str, Any] = json.loads(self.row["params"])
        return found | {"method": self.method, "seed": self.row["seed"]}

    def curves(self) -> Iterator[tuple[int, dict[str, float]]]:
        """(epoch, its numbers); those of an attack are called as `losses/linf`."""
        for row in self.epochs:
            yield row["epoch"], dict(_numbers({name: held for name, held in row.items() if name not in _PLACES}))

    def final(self) -> dict[str, float]:
        """`value`, and every accuracy as `test/linf`, with the averages of each split."""
        found = {} if self.row["value"] is None else {"value": float(self.row["value"])}
        for split in sorted({row["split"] for row in self.results}):
            rows = [row for row in self.results if row["split"] == split]
            found |= {f"{split}/{row['attack']}": float(row["robust_accuracy"]) for row in rows}
            found |= {f"{split}/{name}": mean for name, mean in averages(rows).items()}
        return found


def runs(store: Store) -> list[Run]:
    """The starting model, then every run in the order of numbers, seeds and controls. Equal work has equal numbers."""
    epochs = _by_key(store.epochs().to_pylist())
    results = {key: last(rows) for key, rows in _by_key(store.results().to_pylist()).items()}
    start = [Run(_START, [], rows) for rows in results.values() if rows and rows[0]["method"] == PRETRAINED]
    trials = sorted(store.trials().to_pylist(), key=lambda row: (row["number"], row["replay"], row["seed"]))
    return start + [Run(row, epochs.get(row["key"], []), results.get(row["key"], [])) for row in trials]


_START: Row = dict.fromkeys(("number", "seed", "value", "started", "finished", "seconds", "error", "device")) | {
    "method": PRETRAINED,
    "key": PRETRAINED,
    "params": "{}",
    "replay": False,
    "state": COMPLETE,
}


def _by_key(rows: list[dict[str, Any]]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["trial"], []).append(row)
    return found


def last(rows: list[Row]) -> list[Row]:
    """A model's verdicts at each split's last epoch, of its averaged weights where it has some, without AutoAttack's
    stages."""
    whole = [row for row in rows if row["robust_bits"] is not None and STAGE not in row["attack"]]
    ranks = [(row["epoch"] or 0, row["weights"] == AVERAGED) for row in whole]
    top: dict[str, tuple[int, bool]] = {}
    for row, rank in zip(whole, ranks, strict=True):
        top[row["split"]] = max(rank, top.get(row["split"], rank))
    return [row for row, rank in zip(whole, ranks, strict=True) if rank == top[row["split"]]]


def averages(rows: list[Row]) -> dict[str, float]:
    """avg_lp, avg_semantic and average of a model's verdicts on a split; what was not attacked is left out."""
    attacks = [row for row in rows if row["family"] != "clean" and not row["conditional"]]
    if not attacks:
        return {}
    bits = {row["attack"]: np.asarray(unpack(row["robust_bits"], row["n"]), np.float64) for row in attacks}
    threats = {row["attack"]: (row["family"], row["norm"] or row["attack"]) for row in attacks}
    return {name: float(scores.mean()) for name, scores in averaged(bits, threats).items()}


def _numbers(held: Row, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a row, and in the JSON of its columns."""
    for name, value in held.items():
        if isinstance(value, str) and value.startswith("{"):
            value = json.loads(value)
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, float(value)
