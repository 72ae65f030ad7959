"""All that is stored of one trial: what it was, how it went, what it cost, what it reached, and how to do it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from attacks.errors import InputError
from sweep import alternatives, status
from sweep.analysis import judged, rerun
from sweep.analysis.judged import Compared
from sweep.analysis.reference import Reference
from sweep.settings import flatten
from sweep.store import COMPLETE
from sweep.tables.averages import AVERAGE
from sweep.tables.cells import Cast, Extras
from sweep.tables.models import Model

Rows = list[dict[str, Any]]
SPLITS = ("val", "test")
_RUN = ("seed", "replay", "key", "state", "value", "seconds", "attempts", "started", "finished")
_PLACE = ("revision", "host", "device")
_CURVE = ("epoch", "phase", "lr", "train_loss", "train_accuracy", "seconds", "decay", "gain")
_SPENT = ("seconds", "seconds_attack", "seconds_train")
_PASSES = ("forwards", "backwards")


def account(found: Reference) -> dict[str, Any]:
    """`trial`, a summary; then, each a list of rows: `configuration`, every setting and whether it was searched;
    `runs`, one a seed, and their `errors` in full; `attacks`, the accuracies on val and test with 95 % intervals
    (Wilson's for one seed's, else over resampled images and seeds) and flags; `curves`, one a seed and epoch;
    `environment`; and `commands` by what they do. The starting model has no configuration, runs or curves."""
    document = found.store.document()
    state, value = found.outcome()
    trial = {"trial": found.name, "number": found.number, "method": found.method, "state": state, "value": value}
    trial |= {"seeds": len(found.own)}
    curves = _curves(found)
    return {
        "trial": trial | {name: document.get(name) for name in ("space", "dataset", "model", "init", "created")},
        "configuration": _configuration(found),
        "runs": [_run(row, curves) for row in found.runs],
        "errors": [{"seed": row["seed"], "error": row["error"]} for row in found.runs if row["error"]],
        "attacks": [row for split in SPLITS for row in _attacks(found, split)],
        "curves": curves,
        "environment": environment(found),
        "commands": _commands(found),
    }


def environment(found: Reference) -> Rows:
    """What the trial ran on, as rows of `what` and `value`; what its runs do not have in common is a list."""
    document = found.store.document()
    rows = [{"what": "fingerprint", "value": document.get("fingerprint")}]
    rows += [{"what": f"{name} version", "value": v} for name, v in (document.get("versions") or {}).items()]
    rows.append({"what": "sweep's revision", "value": document.get("revision")})
    runs = {name: list(dict.fromkeys(row[name] for row in found.runs if row[name])) for name in _PLACE}
    return rows + [{"what": name, "value": ", ".join(held)} for name, held in runs.items() if held]


def settings(found: Reference) -> dict[str, Any]:
    """Address -> value of everything that decides the trial's result, but the seed; nothing for the starting model."""
    if found.number is None:
        return {}
    sweep = alternatives.reload(found.store.document()["spec"])
    made = sweep.configure(found.params).model_dump(mode="json")
    return {address: value for address, value in flatten(made) if address != "seed"}


def _configuration(found: Reference) -> Rows:
    searched = found.params.keys()
    return [
        {"address": address, "searched": address in searched, "value": value}
        for address, value in settings(found).items()
    ]


def _run(row: Mapping[str, Any], curves: Rows) -> dict[str, Any]:
    """A run, and what its epochs cost: passes are of the model for each training image, attacks included."""
    own = [epoch for epoch in curves if epoch["key"] == row["key"]]
    told = {name: _plain(row[name]) for name in _RUN}
    told |= {f"epochs_{name}": _sum(epoch[name] for epoch in own) for name in _SPENT}
    return told | {name: _sum(epoch[name] for epoch in own) for name in _PASSES} | {name: row[name] for name in _PLACE}


def _sum(values: Iterable[float | None]) -> float | None:
    held = [value for value in values if value is not None]
    return sum(held) if held else None


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value


def _curves(found: Reference) -> Rows:
    """One row a seed and epoch."""
    seeds = {row["key"]: row["seed"] for row in found.runs}
    epochs = found.store.epochs(where=pc.field("trial").isin(pa.array(seeds, pa.string()))).to_pylist()
    rows = [
        {"seed": seeds[row["trial"]], "key": row["trial"]}
        | {name: row[name] for name in dict.fromkeys((*_CURVE, *_SPENT, *_PASSES))}
        | {"probabilities": json.loads(row["probabilities"] or "{}")}
        for row in epochs
    ]
    return sorted(rows, key=lambda row: (row["seed"], row["key"], row["epoch"]))


def _attacks(found: Reference, split: str) -> Rows:
    model = judged.of(found.store, split).get(found.number) if _met(found, split) else None
    if model is None:
        return []
    columns = Compared.of([model]).columns
    cells, _ = Cast(columns, [model], Extras(intervals=True, marks=False)).row(0)
    names = [name for name in (*columns.before, AVERAGE, *columns.after) if cells[name] is not None]
    return [
        {"split": split, "attack": name, **_about(model, name)}
        | {"accuracy": cells[name], "low": cells[f"{name}_low"], "high": cells[f"{name}_high"]}
        | {"flags": ", ".join(sorted({flag for run in model.runs for flag in run.get(name, {}).get("flags") or []}))}
        for name in names
    ]


def _met(found: Reference, split: str) -> bool:
    """Whether there are verdicts of its sweep on the split."""
    return split in found.store.results(["split"]).column("split").unique().to_pylist()


def _about(model: Model, name: str) -> dict[str, Any]:
    row = model.runs[0].get(name, {})
    told = {column: row.get(column) for column in ("family", "epsilon", "num_steps", "protocol")}
    return told | {"n": model.images, "seeds": len(model.runs)}


def _commands(found: Reference) -> dict[str, str | None]:
    """What to type, by what it does; None to run a trial again that this version of the project makes no more."""
    commands: dict[str, str | None] = {}
    if found.number is not None:
        commands["run again"] = None
        with suppress(InputError):
            commands["run again"] = rerun.command(found)
    if found.number is None or found.outcome()[0] == COMPLETE:
        commands["evaluate"] = status.command("evaluate", found.store, f"{found.name} --attacks all --protocol full")
        commands["export"] = status.command("export", found.store, f"{found.name} --to exported")
    return commands
