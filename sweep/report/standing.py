"""Who stands where: the table of a sweep, with the model that was chosen and the one that all started from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.errors import InputError
from sweep import tables
from sweep.report.snapshot import Snapshot
from sweep.tables import PRETRAINED, Table
from sweep.tables.cells import Extras
from sweep.tables.models import CLEAN, Model, attack_names

Cells = dict[str, Any]
MOST_MODELS = 50
"""What the page shows, beside the starting and the chosen model: the best by average."""
_SPLITS = {"test": "test", "val": "validation"}
_WITH_ALL = Extras(intervals=True)
_BARE = Extras(marks=False)


@dataclass(frozen=True)
class Standing:
    """`table`: of the models shown, of `models` in all; `start` and `best`: their places in it, `best` that of the
    configuration with the best value on the validation split; `said`: why a split was not taken."""

    split: str
    table: Table
    models: int
    start: int | None
    best: int | None
    said: Sequence[str] = ()

    @property
    def split_name(self) -> str:
        return _SPLITS[self.split]

    @property
    def attacks(self) -> list[str]:
        """Family by family, without clean."""
        return [name for name in attack_names(self.table.models) if name != CLEAN]

    @property
    def averages(self) -> list[str]:
        """The columns of averages."""
        return [name for name in self.table.rows[0] if name.startswith("avg_") and not is_end(name)] + ["average"]

    def row(self, place: int | None) -> Cells | None:
        return None if place is None else self.table.rows[place]

    def first(self) -> list[int]:
        """Every place: the chosen model's, that of the one they started from, then the others in order."""
        ahead = [place for place in (self.best, self.start) if place is not None]
        return [*ahead, *(place for place in range(len(self.table.rows)) if place not in ahead)]


def is_end(column: str) -> bool:
    """Whether it is an end of an interval."""
    return column.endswith(("_low", "_high"))


def standing(store: Snapshot) -> Standing:
    """On the test split where a tuned model has met it, else on the validation split."""
    said: list[str] = []
    found: list[Standing] = []
    for split in _SPLITS:
        try:
            one = _standing(store, split, said)
        except InputError as e:
            said.append(f"{e}.")
            continue
        if any(model.method != PRETRAINED for model in one.table.models):
            return one
        said.append(f"No tuned model has met the {_SPLITS[split]} split yet.")
        found.append(one)
    return found[0] if found else Standing("test", Table([], [], None, []), 0, None, None, said)


def _standing(store: Snapshot, split: str, said: Sequence[str]) -> Standing:
    chosen, count, shown = store.best(), 0, store
    if len(store.plans()) > MOST_MODELS:
        bare = tables.compare([store], split, extras=_BARE)
        first = [m for k, m in enumerate(bare.models) if k <= MOST_MODELS or _is(m, chosen) or m.method == PRETRAINED]
        count, shown = len(bare.models), store.only(keys_of(first))
    table = tables.compare([shown], split, extras=_WITH_ALL)
    start = next((k for k, model in enumerate(table.models) if model.method == PRETRAINED), None)
    best = next((k for k, model in enumerate(table.models) if _is(model, chosen)), None)
    return Standing(split, table, max(count, len(table.models)), start, best, said)


def _is(model: Model, chosen: Cells | None) -> bool:
    return chosen is not None and (model.number, model.method) == (chosen["number"], chosen["method"])


def keys_of(models: Iterable[Model]) -> set[str]:
    """The trials that these models' verdicts are of."""
    return {str(row["trial"]) for model in models for run in model.runs for row in run.values()}
