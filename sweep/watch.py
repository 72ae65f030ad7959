"""Judging a run's model on the way, after every so many epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import pyarrow.compute as pc
import torch
from torch import nn

from sweep import tables
from sweep.bits import unpack
from sweep.goals import CLEAN
from sweep.store import Row, Store
from trainers.parts import State
from trainers.workers import Workers

_COLUMNS = ("epoch", "weights", "attack", "family", "norm", "conditional", "n", "robust_bits")


@dataclass
class Watch:
    """A look at each epoch, of which there are `last`. After every so many it judges the live weights, and the averaged
    ones where there are some, and writes their results. What is stored is not judged again, and of the last epoch what
    the run is judged by at its end is left to that.

    `judge`: (weights, which, epoch) -> their `results` rows. `values`: epoch -> the value of the weights that count.
    """

    store: Store
    key: str
    every: int
    last: int
    workers: Workers
    device: torch.device
    judge: Callable[[State, str, int], Sequence[Row]]
    values: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.store.judged(f"{self.key}-epoch-"):
            stored = stored_values(self.store, self.key)
            self.values |= {epoch: value for epoch, value in stored.items() if epoch < self.last}

    def __call__(self, epoch: int, model: nn.Module, averaged: State | None) -> None:
        found = {"live": model.state_dict()} | ({} if averaged is None else {"averaged": averaged})
        if epoch == self.last:
            found.popitem()
        for weights, state in found.items() if epoch % self.every == 0 else ():
            name = f"epoch-{epoch}-val-{weights}"
            if self._is_stored(name):
                continue
            rows = self.judge(state, weights, epoch)
            if epoch < self.last:
                self.values[epoch] = value(rows)
            if self.workers.rank == 0:
                self.store.write_results(self.key, name, rows)

    def _is_stored(self, name: str) -> bool:
        """Whether rank 0 finds these results: workers that disagreed would wait for one another."""
        here = self.store.judged(f"{self.key}-{name}.")
        return bool(self.workers.from_first(torch.tensor(float(here)), self.device))


def stored_values(store: Store, key: str) -> dict[int, float]:
    """Epoch -> value of what was judged on the way: of the averaged weights where there are some."""
    mine = (pc.field("trial") == key) & (pc.field("split") == "val")
    rows = store.results(_COLUMNS, mine).sort_by([("epoch", "ascending"), ("weights", "descending")]).to_pylist()
    looks = groupby(rows, lambda row: (row["epoch"], row["weights"]))
    return {epoch: value(list(held)) for (epoch, _), held in looks}


def value(rows: Iterable[Row]) -> float:
    """What metrics.value says of verdicts, of the `results` rows that they left."""
    attacked = {row["attack"]: row for row in rows if row["attack"] != CLEAN and not row["conditional"]}
    threats = {name: (row["family"], row["norm"] or name) for name, row in attacked.items()}
    robust = {name: np.asarray(unpack(row["robust_bits"], row["n"]), np.float64) for name, row in attacked.items()}
    return tables.averages(robust, threats)[2]
