"""Two trials beside each other: in which settings they differ, and by how much their accuracies do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attacks.errors import InputError
from sweep.analysis import judged
from sweep.analysis.account import environment, settings
from sweep.analysis.judged import Compared
from sweep.analysis.reference import Reference
from sweep.intervals import Floats, percentiles
from sweep.store import COMPLETE
from sweep.tables.columns import Columns
from sweep.tables.models import Model, attack_names, expect_comparable

Rows = list[dict[str, Any]]
NONE = object()


def difference(a: Reference, b: Reference, split: str = "val", *, only_changed: bool = False) -> dict[str, Any]:
    """`A` and `B`, their names, and, each a list of rows: `settings`, those that differ (None beside the starting
    model, which has none); `accuracies`, attack by attack and averaged, with B - A and its paired 95 % interval;
    `environment`, what differs of versions, revision, data and machines.

    The interval resamples the images, the same for both, and the seeds of each, which are no pairs: equal seeds draw
    different noise in different methods. It is `significant` where it leaves 0 out. There is none, and a `note` says
    why, where the two met different images, protocols, budgets or steps, or one did not meet the attack.
    `only_changed` leaves out accuracies that are equal.
    """
    if (a.store, a.number) == (b.store, b.number):
        raise InputError(f"expected two different trials, got {a.name} twice")
    models = [_judged(one, split) for one in (a, b)]
    accuracies = _accuracies(models[0], models[1])
    return {
        "A": a.name,
        "B": b.name,
        "split": split,
        "settings": None if None in (a.number, b.number) else _differing(settings(a), settings(b), "address"),
        "accuracies": [row for row in accuracies if not (only_changed and _equal(row))],
        "environment": _differing(_surroundings(a), _surroundings(b), "what"),
    }


def _equal(row: dict[str, Any]) -> bool:
    return row["difference"] is not None and abs(row["difference"]) < judged.ROUND_OFF


def _judged(found: Reference, split: str) -> Model:
    state, _ = found.outcome()
    if state not in (None, COMPLETE):
        raise InputError(f"{found.name} is {state}: only a COMPLETE trial has accuracies to compare")
    if (model := judged.of(found.store, split).get(found.number)) is None:
        raise InputError(f"{found.name} was not judged on split {split!r}")
    return model


def _surroundings(found: Reference) -> dict[str, Any]:
    seeds = ", ".join(str(row["seed"]) for row in found.own)
    return {row["what"]: row["value"] for row in environment(found)} | {"seeds": seeds or None}


def _differing(a: dict[str, Any], b: dict[str, Any], name: str) -> Rows:
    """One row for each key whose value differs; what one of the two lacks is null."""
    keys = dict.fromkeys([*a, *b])
    return [{name: key, "A": a.get(key), "B": b.get(key)} for key in keys if a.get(key, NONE) != b.get(key, NONE)]


def _accuracies(a: Model, b: Model) -> Rows:
    """Each model's own columns, and the differences in those that compare."""
    values = [Compared.of([model]).values[0] for model in (a, b)]
    notes = {name: _note(a, b, name, values) for name in dict.fromkeys([*values[0], *values[1]])}
    means = _means(a, b, [name for name, note in notes.items() if not note])
    return [_row(name, values, means.get(name), note) for name, note in notes.items()]


def _means(a: Model, b: Model, names: Sequence[str]) -> dict[str, Floats]:
    """Column -> resampled differences B - A, over images that are the same for both."""
    if not names:
        return {}
    before, after = Compared((a, b), Columns.of((a, b), [], None, None)).sampled(names)
    return {name: after[name] - before[name] for name in names}


def _note(a: Model, b: Model, column: str, values: Sequence[dict[str, float]]) -> str:
    """Why two models are not comparable in a column; empty where they are."""
    attacks = attack_names([a, b])
    if column not in attacks and set(attack_names([a])) != set(attack_names([b])):
        return "different attacks"
    for name, held in zip("AB", values, strict=True):
        if column not in held:
            return f"{name} did not meet it"
    try:
        expect_comparable([a, b], [column] if column in attacks else attacks)
    except InputError as e:
        return str(e).removeprefix("not comparable, ")
    return ""


def _row(name: str, values: Sequence[dict[str, float]], differences: Floats | None, note: str) -> dict[str, Any]:
    before, after = (held.get(name) for held in values)
    low, high = (None, None) if differences is None else percentiles(differences)
    return {
        "attack": name,
        "A": before,
        "B": after,
        "difference": None if before is None or after is None else after - before,
        "low": low,
        "high": high,
        "significant": None if differences is None else judged.beyond_noise(differences),
        "note": note,
    }
