"""What a storage says of its sweeps, from folders that the tests write through the store."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeps import planned

from attacks.errors import InputError
from sweep import idle, status, tables
from sweep.bits import pack
from sweep.layers import resolve
from sweep.lease import Lease
from sweep.settings import nest
from sweep.storage import Storage
from sweep.store import Store

FAMILY = {"clean": "clean", "linf": "lp", "jpeg": "semantic", "blur": "semantic"}


def started(folder: Path, sweep_id: str = "s", trials: int = 3) -> Store:
    """A sweep as `run` leaves it before its first trial."""
    sweep = resolve("sat", nest({"trials": trials, "optimizer.epochs": 4, "dataset": "digits"}))
    store = Store(Storage(str(folder)), sweep_id)
    base = sweep.trial
    document = {"space": "sat", "method": "sat", "dataset": "digits", "fingerprint": "f", "trials": trials}
    document |= {"created": "2026-11-20T10:00:00+00:00", "seed": base.seed, "spec": sweep.model_dump(mode="json")}
    store.create(document)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return started(tmp_path)


def plan(store: Store, number: int, **params: Any) -> str:
    key = f"k{number}"
    store.write_plan(number, planned(key, **params))
    return key


def end(store: Store, number: int, state: str = "COMPLETE", value: float | None = None, **more: Any) -> None:
    row = {"number": number, "key": f"k{number}", "state": state, "value": value}
    store.commit_trial(row | {"params": {"optimizer.lr": number / 10}} | more)


def judge(store: Store, number: int, weights: str = "live", epoch: int = 1, **robust: list[bool]) -> None:
    rows = []
    for attack, bits in robust.items():
        counts = {"n": len(bits), "n_robust": sum(bits), "robust_accuracy": sum(bits) / len(bits)}
        row = {"attack": attack, "family": FAMILY[attack], "number": number, "method": "sat", "weights": weights}
        row |= {"epoch": epoch, "split": "val", "conditional": False, "images": "i", "robust_bits": pack(bits)}
        rows.append(row | counts)
    store.write_results(f"k{number}", f"val-{weights}-{epoch}", rows)


# ls


def test_sweeps_are_counted(tmp_path: Path, store: Store) -> None:
    for number, state in enumerate(("COMPLETE", "COMPLETE", "FAILED")):
        plan(store, number)
        end(store, number, state, 0.5 + number / 10 if state == "COMPLETE" else None)
    plan(started(tmp_path, "t"), 0)
    rows = status.sweeps(store.storage)
    assert [row["sweep"] for row in rows] == ["s", "t"]
    assert rows[0] == {"sweep": "s", "space": "sat", "method": "sat", "dataset": "digits", "trials": 3} | {
        "created": "2026-11-20T10:00:00+00:00", "complete": 2, "pruned": 0, "failed": 1, "best": 0.6, "driven": None
    }  # fmt: skip
    assert (rows[1]["complete"], rows[1]["best"]) == (0, None)
    with Lease(store.folder):
        assert status.sweeps(store.storage)[0]["driven"] == f"on {socket.gethostname()}, 0 s ago"
    assert status.sweeps(Storage(str(tmp_path / "none"))) == []


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"trials": 3, "fingerprint": "f", "spec": {}}'])
def test_a_damaged_sweep_does_not_hide_the_others(tmp_path: Path, store: Store, damage: str) -> None:
    other = started(tmp_path, "t")
    (tmp_path / "s" / "sweep.json").write_text(damage)
    rows = status.sweeps(store.storage)
    assert rows[0]["space"].startswith("damaged: ")
    assert rows[1]["space"] == "sat"
    for read in (status.trials, status.best, status.driver):
        with pytest.raises(InputError, match=r"sweep\.json is (corrupt|not a sweep's): "):
            read(store)
        read(other)


# status


def test_trials_show_their_epochs(store: Store) -> None:
    keys = [plan(store, 0), plan(store, 1, **{"optimizer.epochs": 2}), plan(store, 2)]
    store.write_epochs(keys[0], [{"number": 0, "epoch": e} for e in (1, 2, 3)])
    store.write_epochs(keys[1], [{"number": 1, "epoch": e} for e in (1, 2)])
    end(store, 1, "COMPLETE", 0.5, seconds=3.0, params={"optimizer.epochs": 2})
    end(store, 2, "FAILED", error="diverged")

    def run(number: int, **facts: Any) -> dict[str, Any]:
        about = {"number": number, "key": f"k{number}", "method": "sat", "seed": 0, "replay": False, "heard": None}
        return about | facts

    assert status.trials(store) == [
        run(0, state="PLANNED", value=None, epochs="3/4", seconds=None, error=None),
        run(1, state="COMPLETE", value=0.5, epochs="2/2", seconds=3.0, error=None),
        run(2, state="FAILED", value=None, epochs="0/4", seconds=None, error="diverged"),
    ]


def test_a_run_that_has_begun_shows_when_it_was_heard(store: Store) -> None:
    key = plan(store, 0)
    minute_ago = datetime.now(UTC) - timedelta(seconds=60)
    lines = f"{minute_ago:%Y-%m-%dT%H:%M:%SZ} attempt 1\nno time here\n"
    store.folder.write(f"logs/{key}.txt", lines.encode())
    assert status.trials(store)[0]["heard"] == pytest.approx(60, abs=20)
    assert status.log(store, 0) == [(f"seed 0, key {key}", lines.splitlines())]
    end(store, 0, "COMPLETE", 0.5)
    assert status.trials(store)[0]["heard"] is None
    with pytest.raises(InputError, match="expected the number of a trial of s, got 7"):
        status.log(store, 7)


def test_the_idle_share_is_of_every_slot(store: Store) -> None:
    """Two slots for 100 s, a trial of 40 s and one of 60; a driver before, that was killed 10 s after its trial of 30
    ended, had one for 30."""
    assert status.idle_share(store) is None

    def ran(number: int, first: int, last: int) -> None:
        plan(store, number)
        end(store, number, "COMPLETE", 0.5, started=at(first), finished=at(last))

    def at(second: int) -> datetime:
        return datetime(2026, 11, 20, 10, tzinfo=UTC) + timedelta(seconds=second)

    def drive(owner: str, slots: int, **when: int) -> None:
        told = {name: at(second).isoformat() for name, second in when.items()}
        store.folder.write(f"drives/{owner}.json", json.dumps(told | {"slots": slots}).encode())

    drive("a", 1, began=0)
    drive("b", 2, began=1000, ended=1100)
    ran(0, 0, 30)
    ran(1, 1000, 1040)
    ran(2, 1010, 1070)
    share, hours = idle.share(store) or (0.0, 0.0)
    assert (share, hours) == (pytest.approx(1 - 130 / 230), pytest.approx(230 / 3600))


def test_who_drives_a_sweep(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEP_STORAGE", raising=False)
    nobody = f"nobody drives it; go on with: python -m sweep resume s --storage {store.storage.uri}"
    assert status.driver(store) == nobody
    with Lease(store.folder):
        assert status.driver(store).startswith("driven by process ")
    for number in range(3):
        plan(store, number)
        assert status.driver(store) == nobody
    for number in range(3):
        end(store, number, "COMPLETE", 0.1)
    assert status.driver(store) == "finished"


def test_a_dead_driver_drives_nothing(store: Store) -> None:
    with Lease(store.folder):
        held = json.loads(store.folder.read("lease.json"))
    store.folder.write("lease.json", json.dumps(held | {"started": "1"}).encode())
    assert status.driver(store).startswith("nobody drives it")


def test_commands_name_the_storage_where_it_is_not_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(Storage(str(tmp_path / "a b")), "s")
    monkeypatch.setenv("SWEEP_STORAGE", str(tmp_path / "other"))
    assert status.command("best", store) == f"python -m sweep best s --storage '{tmp_path}/a b'"
    monkeypatch.setenv("SWEEP_STORAGE", str(tmp_path / "a b"))
    assert status.command("best", store) == "python -m sweep best s"
    monkeypatch.delenv("SWEEP_STORAGE")
    monkeypatch.chdir(tmp_path)
    assert status.command("query", Store(Storage("results"), "s"), "'select 1'") == "python -m sweep query 'select 1'"


# best


def test_best_is_the_first_and_those_within_noise_of_it(store: Store) -> None:
    """Trial 0 is behind on every third image, by chance as it seems; 1 is far behind; 2 is first; 3 has not ended."""
    first = [True] * 30 + [False] * 10
    near = first[:29] + [False, True] + [False] * 9
    far = [True] * 10 + [False] * 30
    for number, bits in enumerate((near, far, first, first)):
        plan(store, number)
        judge(store, number, clean=[True] * 40, linf=bits, jpeg=bits)
    for number, value in ((0, 0.74), (1, 0.25), (2, 0.75)):
        end(store, number, "COMPLETE", value)
    rows = status.best(store)
    assert [row["number"] for row in rows] == [2, 0]
    assert rows[0] == {"number": 2, "method": "sat", "key": "k2", "value": 0.75, "behind": 0.0, "optimizer.lr": 0.2}
    assert rows[1]["behind"] == pytest.approx(0.01)


def test_the_lower_number_is_first_among_equals_and_failures_never(store: Store) -> None:
    for number in range(3):
        plan(store, number)
        judge(store, number, linf=[True, False])
    end(store, 2, "COMPLETE", 0.5)
    end(store, 1, "COMPLETE", 0.5)
    end(store, 0, "FAILED")
    assert [row["number"] for row in status.best(store)] == [1, 2]


def test_a_trial_without_verdicts_is_best_only_by_its_value(store: Store) -> None:
    plan(store, 0)
    end(store, 0, "COMPLETE", 0.5)
    judge(store, 1, linf=[True, False])
    end(store, 1, "COMPLETE", 0.4)
    assert [row["number"] for row in status.best(store)] == [0]
    assert status.best(started(Path(store.storage.uri), "empty")) == []


# the scores behind it


def test_scores_by_hand(store: Store) -> None:
    judge(store, 0, clean=[True] * 3, linf=[True, False, False], jpeg=[True, True, False], blur=[True, False, False])
    (scores,) = tables.scores(store, "val").values()
    assert scores.tolist() == [[1.0, 0.25, 0.0]]
    assert tables.scores(store, "test") == {}


def test_scores_are_of_the_last_epoch_and_the_averaged_weights(store: Store) -> None:
    judge(store, 0, "averaged", 2, linf=[True, True])
    judge(store, 0, "averaged", 1, linf=[False, False])
    judge(store, 0, "live", 3, linf=[False, True])
    judge(store, 1, "live", 3, jpeg=[False, True])
    judge(store, 2, "live", 3, clean=[True, True])
    found = {key: value.tolist() for key, value in tables.scores(store, "val").items()}
    assert found == {"k0": [[1.0, 1.0]], "k1": [[0.0, 1.0]]}


def test_scores_mean_what_a_table_averages(store: Store) -> None:
    rng = np.random.default_rng(0)
    bits: dict[str, Any] = {attack: [bool(b) for b in rng.random(50) < 0.5] for attack in FAMILY}
    judge(store, 0, **bits)
    assert tables.scores(store, "val")["k0"].mean() == pytest.approx(tables.table(store, "val")[0]["average"])
