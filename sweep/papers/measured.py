"""What sweeps and evaluations measured, model by model: a model judged in several of them is one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow.compute as pc

from sweep.schema import EVALUATION, TRADEOFF
from sweep.settings import at
from sweep.store import COMPLETE, Store
from sweep.tables.models import AVERAGED, PRETRAINED, STAGE

Row = Mapping[str, Any]
_WHO = ("sweep_id", "trial", "number", "method", "dataset", "model", "init", "seed", "weights", "epoch", "split")
_WHAT = ("attack", "family", "epsilon", "num_steps", "protocol", "images", "budget_id", "conditional", "flags")
COLUMNS = (*_WHO, *_WHAT, "n", "n_robust", "robust_bits")


@dataclass(frozen=True)
class Run:
    """One seed of a model. `judged`: sweep or evaluation -> attack -> its row."""

    key: str
    seed: int | None
    judged: dict[str, dict[str, Row]]

    def rows(self, names: Sequence[str]) -> list[Row] | None:
        """The rows under these attacks from one evaluation: the one of most images, of equals the first; or None."""
        found = [[rows[name] for name in names] for rows in self.judged.values() if rows.keys() >= set(names)]
        return max(found, key=lambda rows: min(row["n"] for row in rows), default=None)


@dataclass(frozen=True)
class Model:
    """A configuration, or a starting model. `store`: the sweep that made it, where it is one of those given;
    `settings`: its document there."""

    method: str
    number: int | None
    dataset: str
    model: str
    init: str
    store: Store | None
    value: float | None
    params: dict[str, Any]
    settings: Mapping[str, Any]
    runs: list[Run] = field(default_factory=list)

    def setting(self, address: str) -> Any:
        """What it has at an address; None where nothing is known of it."""
        if address in self.params:
            return self.params[address]
        try:
            return at(dict(self.settings), address)
        except (KeyError, TypeError):
            return None

    @property
    def name(self) -> str:
        """As `evaluate` takes it."""
        return f"{self.store.sweep_id if self.store else ''}/{PRETRAINED if self.number is None else self.number}"


@dataclass(frozen=True)
class Measured:
    """The sweeps given, and what they say of one split; of these methods, where some are named."""

    stores: tuple[Store, ...]
    split: str = "test"
    methods: frozenset[str] | None = None

    @cached_property
    def documents(self) -> list[dict[str, Any]]:
        return [store.document() for store in self.stores]

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(str(document.get("dataset")) for document in self.documents))

    @cached_property
    def models(self) -> list[Model]:
        """Sweep by sweep, what is COMPLETE; then what is judged and no given sweep made, the starting models among
        them."""
        judged = self.judged()
        made = [model for store, document in self._sweeps() for model in _configurations(store, document, judged)]
        known = {run.key for model in made for run in model.runs}
        return [*made, *self._others({key: rows for key, rows in judged.items() if key not in known})]

    def judged(self) -> dict[str, dict[str, dict[str, Row]]]:
        """Model's key -> sweep -> attack -> its row at the last epoch, of averaged weights where there are some. What
        was judged at scaled budgets is left out."""
        found: dict[str, dict[str, dict[str, Row]]] = {}
        for store, document in zip(self.stores, self.documents, strict=True):
            if (document.get("spec") or {}).get("scale", 1.0) != 1.0:
                continue
            rows = sorted(
                self.verdicts(store, self.split), key=lambda row: (row["epoch"] or 0, row["weights"] == AVERAGED)
            )
            last = {row["trial"]: (row["epoch"], row["weights"]) for row in rows}
            for row in rows:
                if (row["epoch"], row["weights"]) == last[row["trial"]]:
                    found.setdefault(row["trial"], {}).setdefault(store.sweep_id, {})[row["attack"]] = row
        return found

    @cached_property
    def epochs(self) -> dict[str, list[Row]]:
        """Trial's key -> the rows of its epochs, in order."""
        found: dict[str, list[Row]] = {}
        for store in self.stores:
            for row in store.epochs().to_pylist():
                found.setdefault(row["trial"], []).append(row)
        return found

    def _sweeps(self) -> Iterator[tuple[Store, dict[str, Any]]]:
        for store, document in zip(self.stores, self.documents, strict=True):
            if document.get("kind") not in (EVALUATION, TRADEOFF):
                yield store, document

    def verdicts(
        self, store: Store, split: str, keys: Collection[str] | None = None, more: Sequence[str] = ()
    ) -> list[Row]:
        """The rows of a split with a verdict on every image, of these models where some are named; no stages. `more`
        columns than the usual ones."""
        where = (pc.field("split") == split) & pc.field("robust_bits").is_valid()
        where &= ~pc.match_substring(pc.field("attack"), STAGE)
        if keys is not None:
            where &= pc.field("trial").isin(list(keys))
        if self.methods is not None:
            where &= pc.field("method").isin(list(self.methods))
        rows = store.results([*COLUMNS, *more], where).to_pylist()
        return [row for row in rows if not row["conditional"]]

    def _others(self, judged: Mapping[str, dict[str, dict[str, Row]]]) -> list[Model]:
        origins = {(d.get("dataset"), d.get("model"), d.get("init")): store for store, d in self._sweeps()}
        found: dict[tuple[Any, ...], Model] = {}
        for key, sources in judged.items():
            row = next(iter(next(iter(sources.values())).values()))
            about = (row["dataset"], row["model"], row["init"])
            pretrained = row["method"] == PRETRAINED
            who = (key,) if pretrained else (row["sweep_id"], row["number"], row["method"])
            origin = origins.get(about) if pretrained else None
            number = None if pretrained else row["number"]
            model = Model(row["method"], number, *about, store=origin, value=None, params={}, settings={})
            found.setdefault(who, model).runs.append(Run(key, row["seed"], sources))
        return list(found.values())


def _configurations(store: Store, document: Row, judged: Mapping[str, dict[str, dict[str, Row]]]) -> Iterator[Model]:
    spec = document.get("spec") or {}
    dataset, model, init = (str(document.get(name)) for name in ("dataset", "model", "init"))
    by_number: dict[int, list[Row]] = {}
    for row in store.ended():
        if row["state"] == COMPLETE and not row["replay"]:
            by_number.setdefault(row["number"], []).append(row)
    for number, rows in by_number.items():
        method, values = rows[0]["method"], [row["value"] for row in rows if row["value"] is not None]
        own = (spec.get("alternatives") or {}).get(method) or {}
        params, value = json.loads(rows[0]["params"] or "{}"), sum(values) / len(values) if values else None
        runs = [Run(row["key"], row["seed"], judged.get(row["key"], {})) for row in rows]
        yield Model(method, number, dataset, model, init, store, value, params, own.get("trial") or {}, runs)


def robust(row: Row) -> float:
    return float(row["n_robust"]) / float(row["n"])
