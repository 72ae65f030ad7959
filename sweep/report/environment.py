"""What the numbers come from: data, models, seeds, machines, versions, and the commands to go on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sweep import status
from sweep.report.snapshot import Snapshot
from sweep.report.words import DASH, Grid, Section, number
from sweep.schema import SWEEPS
from sweep.store import FAILED

_MOST_FAILURES = 20
_ASIDE = ("created", "spec", "versions", "sweep_id")
_SQL = "select attack, avg(robust_accuracy) from results group by 1"


def environment(store: Snapshot) -> Section:
    document, runs = store.document(), store.trials().to_pylist()
    facts = [["created", _moment(document.get("created"))]]
    facts += [[name, _text(document.get(name))] for name in SWEEPS if name not in _ASIDE]
    places = sorted({(run["host"], run["device"]) for run in runs if run["host"]})
    facts += [["machines", ", ".join(f"{host} ({device})" for host, device in places) or DASH]]
    facts += [["seeds", ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs})) or DASH]]
    facts += [["code revisions of the trials", ", ".join(sorted({run["revision"] or DASH for run in runs})) or DASH]]
    facts += [["seconds of all trials", number(sum(run["seconds"] or 0.0 for run in runs))]]
    versions = [[name, _text(version)] for name, version in _mapping(document.get("versions")).items()]
    grids = [Grid("The sweep", ["What", "Value"], facts), Grid("Versions", ["Package", "Version"], versions)]
    return Section("environment", "Environment", [], [], [*grids, _commands(store), *_failures(runs)])


def specification(store: Snapshot) -> str:
    """The sweep as it was resolved, for a reader to check."""
    return json.dumps(store.document().get("spec"), indent=2, ensure_ascii=False)


def _commands(store: Snapshot) -> Grid:
    verbs = (("go on", "resume", ""), ("the table", "table", ""), ("ask in SQL", "query", f'"{_SQL}"'))
    return Grid("Commands", ["To", "Type"], [[what, status.command(verb, store, more)] for what, verb, more in verbs])


def _failures(runs: list[dict[str, Any]]) -> list[Grid]:
    failed = [run for run in runs if run["state"] == FAILED]
    rows = [[str(run["number"]), str(run["seed"]), run["error"] or DASH] for run in failed[:_MOST_FAILURES]]
    more = f", the first {_MOST_FAILURES} of {len(failed)}" if len(failed) > _MOST_FAILURES else ""
    return [Grid(f"Trials that failed{more}", ["Trial", "Seed", "Why"], rows)] if rows else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return DASH if value in (None, "") else str(value)


def _moment(text: Any) -> str:
    """To the minute."""
    try:
        return f"{datetime.fromisoformat(str(text)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return _text(text)
