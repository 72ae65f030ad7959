"""What SWEEP/3, SWEEP/best and SWEEP/pretrained name: a trial of a sweep, whatever became of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from attacks.errors import InputError
from sweep import status
from sweep.storage import Storage
from sweep.store import Store, overall
from sweep.tables.models import PRETRAINED

BEST = "best"


@dataclass(frozen=True)
class Reference:
    """A configuration and the rows of its runs, seed by seed, its controls' among them; or, without a number, the
    starting model, which has neither."""

    store: Store
    number: int | None
    method: str
    params: dict[str, Any]
    runs: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        """As `evaluate` takes it."""
        return f"{self.store.sweep_id}/{PRETRAINED if self.number is None else self.number}"

    @property
    def own(self) -> list[dict[str, Any]]:
        """The runs that are no controls."""
        return [row for row in self.runs if not row["replay"]]

    def outcome(self) -> tuple[str | None, float | None]:
        """Its state and its mean value over the seeds; none of the starting model."""
        return overall(self.own) if self.own else (None, None)


def find(text: str, storage: Storage) -> Reference:
    """The trial that a text names; a sweep's id alone stands for its best. InputError where there is none."""
    sweep_id, _, which = text.partition("/")
    store = Store(storage, sweep_id)
    status.sound(store)
    if which == PRETRAINED:
        return Reference(store, None, PRETRAINED, {}, ())
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in store.trials().to_pylist():
        runs.setdefault(str(row["number"]), []).append(row)
    number = _best(store) if which in ("", BEST) else which
    if number not in runs:
        known = f", {BEST} or 0 to {max(map(int, runs))}" if runs else ""
        raise InputError(f"expected {PRETRAINED}{known} after {sweep_id}/, got {which!r}")
    rows = sorted(runs[number], key=lambda row: (row["replay"], row["seed"] or 0))
    return Reference(store, int(number), rows[0]["method"], json.loads(rows[0]["params"]), tuple(rows))


def _best(store: Store) -> str:
    if (best := store.best()) is None:
        raise InputError(f"no trial of {store.sweep_id} is COMPLETE yet: see `{status.command('status', store)}`")
    return str(best["number"])
