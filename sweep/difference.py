"""Two trials beside each other: in which settings they differ, and by how much their accuracies do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attacks.errors import InputError
from sweep.account import SPLITS, environment, model_of, settings
from sweep.intervals import Floats, percentiles, resample
from sweep.judged import AVERAGES, MUST_AGREE, Judged
from sweep.reference import Reference
from sweep.store import COMPLETE

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
    models = [_judged(one, split) for one in (a, b)]
    accuracies = _accuracies(models[0], models[1])
    return {
        "A": a.name,
        "B": b.name,
        "split": split,
        "settings": None if None in (a.number, b.number) else _differing(settings(a), settings(b), "address"),
        "accuracies": [row for row in accuracies if not only_changed or row["difference"] != 0],
        "environment": _differing(_surroundings(a), _surroundings(b), "what"),
    }


def _judged(found: Reference, split: str) -> Judged:
    state, _ = found.outcome()
    if state not in (None, COMPLETE):
        raise InputError(f"{found.name} is {state}: only a COMPLETE trial has accuracies to compare")
    if (model := model_of(found, split)) is None:
        other = " or ".join(one for one in SPLITS if one != split)
        raise InputError(f"{found.name} was not judged on split {split!r}: try --split {other}")
    return model


def _surroundings(found: Reference) -> dict[str, Any]:
    seeds = ", ".join(str(row["seed"]) for row in found.own)
    return {row["what"]: row["value"] for row in environment(found)} | {"seeds": seeds or None}


def _differing(a: dict[str, Any], b: dict[str, Any], name: str) -> Rows:
    """One row for each key whose value differs; what one of the two lacks is null."""
    keys = dict.fromkeys([*a, *b])
    return [{name: key, "A": a.get(key), "B": b.get(key)} for key in keys if a.get(key, NONE) != b.get(key, NONE)]


def _accuracies(a: Judged, b: Judged) -> Rows:
    columns = list(dict.fromkeys([*a.attacks(), *b.attacks(), *AVERAGES]))
    pairs = {name: (a.scores(name), b.scores(name)) for name in columns}
    notes = {name: _note(a, b, name) for name in columns}
    compared = [name for name in columns if not notes[name] and pairs[name][0] is not None]
    means = _means([pairs[name] for name in compared])
    intervals = {name: percentiles(after - before) for name, (before, after) in zip(compared, means, strict=True)}
    return [
        _row(name, *pairs[name], intervals.get(name), notes[name])
        for name in columns
        if any(scores is not None for scores in pairs[name])
    ]


def _means(pairs: Sequence[tuple[Floats | None, Floats | None]]) -> Sequence[Sequence[Floats]]:
    """For each pair the resampled means of both, over the same images."""
    groups = [scores for pair in pairs for scores in pair if scores is not None]
    return np.asarray(resample(groups)).reshape(len(pairs), 2, -1) if groups else []  # type: ignore[return-value]


def _note(a: Judged, b: Judged, column: str) -> str:
    """Why two models are not comparable in a column; empty where they are."""
    names = [column]
    if column in AVERAGES:
        if set(a.attacks()) != set(b.attacks()):
            return "different attacks"
        names = a.attacks()
    elif column not in a.attacks() or column not in b.attacks():
        return f"{'A' if column not in a.attacks() else 'B'} did not meet it"
    rows = [run[name] for name in names for run in (*a.runs, *b.runs)]
    differ = [what for field, what in MUST_AGREE.items() if _disagree(rows, field)]
    return f"different {', '.join(differ)}" if differ else ""


def _disagree(rows: Sequence[Any], field: str) -> bool:
    """Whether the rows under one attack differ in a field; a null, as clean's budget, agrees with everything."""
    seen: dict[str, set[Any]] = {}
    for row in rows:
        if row[field] is not None:
            seen.setdefault(row["attack"], set()).add(row[field])
    return any(len(values) > 1 for values in seen.values())


def _row(
    name: str, a: Floats | None, b: Floats | None, interval: tuple[float, float] | None, note: str
) -> dict[str, Any]:
    before, after = (None if scores is None else float(scores.mean()) for scores in (a, b))
    low, high = interval or (None, None)
    return {
        "attack": name,
        "A": before,
        "B": after,
        "difference": None if before is None or after is None else after - before,
        "low": low,
        "high": high,
        "significant": None if low is None or high is None else not low <= 0 <= high,
        "note": note,
    }
