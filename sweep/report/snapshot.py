"""A sweep at one moment: a page that is made while trials end must not contradict itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sweep import schema
from sweep.store import Store

_ENDS = ["trial", "weights", "split", "epoch"]
_KEPT = [name for name in schema.RESULTS if name not in ("predicted", "labels")]


@dataclass(frozen=True)
class Snapshot(Store):
    """A store that asks for each thing once; whoever asks again gets the same rows. `keys`: the trials that its results
    are narrowed to, None for all."""

    keys: frozenset[str] | None = None
    _held: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, store: Store) -> Snapshot:
        return cls(store.storage, store.sweep_id)

    def only(self, keys: Collection[str]) -> Snapshot:
        """The same sweep with the results of these trials alone."""
        return replace(self, keys=frozenset(keys))

    def document(self) -> dict[str, Any]:
        return dict(self._once("document", super().document))

    def plans(self) -> list[dict[str, Any]]:
        return list(self._once("plans", super().plans))

    def trials(self) -> pa.Table:
        return self._once("trials", super().trials)

    def ended(self) -> list[dict[str, Any]]:
        return list(self._once("ended", super().ended))

    def configurations(self) -> list[dict[str, Any]]:
        return list(self._once("configurations", super().configurations))

    def results(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Of each trial those at its last epochs, without the predicted classes."""
        held = self._once("results", self._last)
        if self.keys is not None:
            held = held.filter(of_trials(self.keys))
        held = held if where is None else held.filter(where)
        return held if columns is None else held.select(list(columns))

    def worst(self, where: pc.Expression) -> pa.Table:
        """The rows of `examples` that it is true of."""
        return super()._read("examples", None, where)

    def _last(self) -> pa.Table:
        """In two passes over the files, however large they are: which epochs are the last, then their rows."""
        read = super()._read
        ends = read("results", _ENDS).group_by(_ENDS[:-1]).aggregate([("epoch", "max")])
        trials: dict[int | None, set[str]] = {}
        for trial, epoch in zip(*(ends.column(name).to_pylist() for name in ("trial", "epoch_max")), strict=True):
            trials.setdefault(epoch, set()).add(trial)
        last = [_at(epoch) & of_trials(keys) for epoch, keys in trials.items()]
        return read("results", _KEPT, reduce(or_, last, pc.scalar(False)))

    def _read(self, table: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        return self._once(f"{table} {columns} {where}", lambda: Store._read(self, table, columns, where))

    def _once(self, name: str, read: Callable[[], Any]) -> Any:
        if name not in self._held:
            self._held[name] = read()
        return self._held[name]


def _at(epoch: int | None) -> pc.Expression:
    return pc.field("epoch").is_null() if epoch is None else pc.field("epoch") == epoch


def of_trials(keys: Collection[str]) -> pc.Expression:
    return pc.field("trial").isin(pa.array(sorted(keys), pa.string()))
