"""Tables of sweeps from their stored verdicts: accuracies, averages, exact unions, intervals, and which of them are the
best, or within noise of it. No attack runs again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attacks.errors import InputError
from sweep.settings import METHOD
from sweep.store import Store
from sweep.tables import models as judged
from sweep.tables.averages import AVERAGE, FORMULAS, USUAL
from sweep.tables.averages import averages as averages
from sweep.tables.cells import Cast
from sweep.tables.cells import Extras as Extras
from sweep.tables.columns import WORST_ATTACK, WORST_CASE, Columns
from sweep.tables.columns import scores as scores
from sweep.tables.models import PRETRAINED as PRETRAINED
from sweep.tables.models import REPLAY as REPLAY
from sweep.tables.models import Cells, Model, Row
from sweep.tables.ratios import Reference

USUALLY = Extras()
_TEXT = {"number", "method", "sweep", "scale", "weights", "seeds", "images", "flags", "settings"}


@dataclass(frozen=True)
class Table:
    """`models`: what each row is of. `marks`: for each row, column -> "best" or "tied", or None for a table without.
    `notes`: what a reader must know, a line each."""

    models: list[Model]
    rows: list[Cells]
    marks: list[dict[str, str]] | None
    notes: list[str]


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
    """The rows of `compare` for one sweep, with the union of `attacks` where some are named."""
    extras = Extras(intervals, marks=False, level=level, resamples=resamples, seed=seed)
    return compare([store], split, [attacks] if attacks else [], extras=extras).rows


def compare(
    stores: Sequence[Store],
    split: str = "test",
    unions: Iterable[Sequence[str]] = (),
    *,
    average: str | None = None,
    reference: Store | None = None,
    extras: Extras = USUALLY,
) -> Table:
    """One row per configuration and kind of weights, the pre-trained models first, then the best average first.

    Columns: number, method, sweep (of several), weights, seeds (runs averaged), images, clean, each attack, the
    averages (see averages.py), the average with its interval and, where there are several seeds, its standard
    deviation over them (`std`), gain over the sweep's pre-trained model with its interval, each of `unions`, the exact
    union of all attacks, the worst attack, and, with a `reference`, MultiRobustBench's ratios (see ratios.py);
    `settings`, where several configurations have the same method; and the flags of doubtful verdicts, where there are
    any. Accuracies are fractions, means over seeds; the last epoch of each run counts.

    Intervals of averages and gains resample images and seeds together, the same images for all models; so do the
    others, but for verdicts of one seed, which have Wilson's. The best of a column is marked, and so is what lies
    within noise of it: the interval of the paired difference holds 0. Refused where models differ in images, or in an
    attack's protocol, budget or steps. A model that did not meet every attack has no average.
    """
    runs = {store.sweep_id: store.trials().to_pylist() for store in _known(stores)}
    models = [model for store in stores for model in _read(store, split, runs[store.sweep_id])]
    base = None if reference is None else Reference.read(reference, split)
    _expect_comparable(models, base)
    columns = Columns.of(models, list(unions), average, base)
    cast = Cast(columns, models, extras)
    made = [cast.row(k) for k in range(len(models))]
    rows = [row for row, _ in made]
    if len(stores) > 1:
        rows = [_after("method", row, {"sweep": model.sweep}) for model, row in zip(models, rows, strict=True)]
    if all(len(model.runs) == 1 for model in models):
        rows = [{name: cell for name, cell in row.items() if name != "std"} for row in rows]
    if settings := _told_apart(runs, models):
        rows = [row | {"settings": settings.get((m.sweep, m.number), "")} for m, row in zip(models, rows, strict=True)]
    if any(flagged := [model.flags() for model in models]):
        rows = [row | {"flags": flags} for row, flags in zip(rows, flagged, strict=True)]
    order = sorted(range(len(rows)), key=lambda k: _place(rows[k]))
    marks = [made[k][1] for k in order] if extras.marks else None
    return Table([models[k] for k in order], [rows[k] for k in order], marks, _notes(cast, base))


def stacked(name: str, parts: Mapping[float, Table]) -> Table:
    """Tables one below the other, with a first column, called `name`, of what each is of; marks are within each."""
    tables = parts.values()
    return Table(
        [model for one in tables for model in one.models],
        [{name: value} | row for value, one in parts.items() for row in one.rows],
        None if any(one.marks is None for one in tables) else [mark for one in tables for mark in one.marks or []],
        list(dict.fromkeys(note for one in tables for note in one.notes)),
    )


def fractions(rows: Iterable[Row]) -> set[str]:
    """The columns of a table that hold accuracies or their differences, for render.show's `percent`."""
    return {name for row in rows for name in row} - _TEXT


def _place(row: Row) -> tuple[bool, float, int]:
    return row["method"] != PRETRAINED, -(row[AVERAGE] or 0.0), row["number"] or 0


def _known(stores: Sequence[Store]) -> Sequence[Store]:
    for store in stores:
        store.document()  # an unknown sweep says so
    if len({store.sweep_id for store in stores}) < len(stores):
        raise InputError(f"expected each sweep once, got {', '.join(store.sweep_id for store in stores)}")
    return stores


def _read(store: Store, split: str, runs: Sequence[Row]) -> list[Model]:
    if found := judged.read(store, split, runs):
        return found
    raise judged.nothing_on(store, split, runs)


def _expect_comparable(models: Sequence[Model], base: Reference | None) -> None:
    """Says what to do about models of several sweeps that do not compare."""
    others = [] if base is None else [model for held in base.models.values() for model in held]
    everyone = [*models, *others]
    names = judged.attack_names(models)
    sweeps = list(dict.fromkeys(model.sweep for model in everyone))
    try:
        judged.expect_comparable(everyone, names)
    except InputError as e:
        if len(sweeps) == 1:
            raise
        judge = " ".join(f"{sweep}/best" for sweep in sweeps)
        raise InputError(f"{e}; to compare models judge them alike: python -m sweep evaluate {judge}") from e


def _told_apart(runs: Mapping[str, Iterable[Row]], models: Sequence[Model]) -> dict[tuple[str, int | None], str]:
    """(Sweep, number) -> the values at its searched addresses, where the method's name is not enough."""
    numbers: dict[tuple[str, str], set[int | None]] = {}
    for model in models:
        numbers.setdefault((model.sweep, model.method), set()).add(model.number)
    if all(len(held) == 1 for held in numbers.values()):
        return {}
    params = {(sweep, row["number"]): json.loads(row["params"]) for sweep, rows in runs.items() for row in rows}
    return {
        who: ", ".join(f"{address}={value}" for address, value in held.items() if address != METHOD)
        for who, held in params.items()
    }


def _after(name: str, row: Cells, more: Cells) -> Cells:
    """The row with more cells after the one of that name."""
    return {
        key: cell
        for held, value in row.items()
        for key, cell in {held: value, **(more if held == name else {})}.items()
    }


def _notes(cast: Cast, base: Reference | None) -> list[str]:
    found, columns, extras = [], cast.columns, cast.extras
    if extras.marks:
        found.append(
            f"within noise: the {100 * extras.level:g} % interval of the paired difference from the best, over "
            f"{extras.resamples} resamples of the images and seeds, holds 0."
        )
    found.append(
        f"{WORST_CASE}: robust against every attack at once, image by image; {WORST_ATTACK}: the lowest accuracy under "
        "one attack."
    )
    if columns.formula != USUAL:
        found.append(f"{AVERAGE}: the mean of {' and '.join(FORMULAS[columns.formula])}.")
    if refused := cast.refusal():
        found.append(f"{WORST_CASE}: some models have none: {refused}.")
    return found + ([] if base is None else columns.told(base.store.sweep_id))
