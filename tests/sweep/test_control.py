"""The verbs that steer a sweep which is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from shells import Shell

from sweep.control import Cancelled, Control, ask
from sweep.layers import resolve
from sweep.lease import Lease
from sweep.settings import nest
from sweep.storage import Storage
from sweep.store import Store


def test_a_driver_is_asked_to_stop(finished: Store, sweep: Shell) -> None:
    with Lease(finished.folder) as lease:
        control = Control(finished.folder, lease.owner)
        control.poll()
        assert control.reason is None
        answer = sweep("stop", "s")
        assert (answer.code, answer.out) == (0, "")
        control._looked = 0.0
        control.poll()
        assert control.reason == "it was asked to stop"
        control.close()
        again = Control(finished.folder, lease.owner)
        again.poll()
        assert again.reason is None


def test_a_driver_is_cancelled(finished: Store) -> None:
    with Lease(finished.folder) as lease:
        ask(finished, "cancel")
        with pytest.raises(Cancelled):
            Control(finished.folder, lease.owner).poll()
        other = Control(finished.folder, "another driver")
        other.poll()
        assert other.reason is None


def test_a_damaged_wish_is_none(finished: Store) -> None:
    finished.folder.write("control.json", b"{")
    control = Control(finished.folder, "owner")
    control.poll()
    assert control.reason is None


def test_nobody_to_ask(finished: Store, sweep: Shell) -> None:
    for verb in ("stop", "cancel"):
        assert sweep.refused(verb, "s") == "expected a sweep that is being driven, got s, which nobody drives"
        assert sweep.refused(verb, "none").startswith("unknown sweep 'none'")


def test_gc_keeps_the_best(swept: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Shell) -> None:
    """Three seeds a configuration: a model each."""
    shutil.copytree(Path(swept.storage.uri) / "fixture", sweep.results / "fixture")
    mine = Store(Storage(str(sweep.results)), "fixture")
    best, *others = mine.configurations()
    before = mine.folder.names("checkpoints")
    told = sweep("gc", "fixture", "--dry-run")
    assert told.code == 0
    assert told.out.splitlines()[0] == f"would remove {3 * len(others)} folders of checkpoints"
    assert mine.folder.names("checkpoints") == before
    assert sweep("gc", "fixture").out.splitlines()[0] == f"removed {3 * len(others)} folders of checkpoints"
    kept = {name.split("/")[1] for name in mine.folder.names("checkpoints")}
    assert kept == {run["key"] for run in best["runs"]}
    assert sweep("gc", "fixture").out == "removed 0 folders of checkpoints\n"
    gone = others[0]["number"]
    message = sweep.refused("evaluate", f"fixture/{gone}", "--attacks", "linf", "--n", "5")
    assert message == f"the model of trial {gone} of fixture is not kept any more (`gc` removes them)"


def test_more_trials_are_planned_where_there_are_more(sweep: Shell) -> None:
    assert resolve("sat", nest({"trials": 2})).grown(9).trials == 9
    grid = resolve("compare", nest({"dataset": "digits"}))
    store = Store(Storage(str(sweep.results)), "grid")
    store.create({"trials": grid.trials, "fingerprint": "f", "spec": json.loads(grid.model_dump_json())})
    assert sweep.refused("extend", "grid", "--trials", "5") == "expected at most 0 more trials of a grid, got 5"


def test_what_makes_no_limit(finished: Store, sweep: Shell) -> None:
    for time in ("2", "h", "-1h", "nan s", ""):
        assert sweep.refused("resume", "s", "--time-limit", time) == (
            f"expected a time such as 90s, 45m or 2h, got {time!r}"
        )
