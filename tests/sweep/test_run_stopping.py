"""Real sweeps whose trials are stopped early."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from shells import Shell
from sweeps import Sweeps

from sweep.store import Store

pytestmark = pytest.mark.ray

SEARCH = "  optimizer.lr: {values: [1.0e-9, 0.02, 0.05, 0.2]}"
STOPPING = ["--max-concurrent", "1", "--stopping", "asha", "--set", "stopping.reduction=2"]
SECONDS = 5.0
"""How long what a stopped trial had may stay taken."""


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    made = Sweeps(tmp_path)
    yield made
    made.end()


def rows(store: Store) -> list[dict[str, Any]]:
    return list(store.trials().to_pylist())


def reached(row: dict[str, Any]) -> int:
    return max(map(int, json.loads(row["intermediate"])))


def value_at(store: Store, key: str, epoch: int) -> float:
    """By hand, from the stored verdicts: the mean of the mean over two norms and of the semantic attack."""
    held = [row for row in store.results().to_pylist() if (row["trial"], row["epoch"]) == (key, epoch)]
    robust = {row["attack"]: row["robust_accuracy"] for row in held if row["split"] == "val"}
    return float((robust["linf"] + robust["l1"]) / 2 + robust["blur"]) / 2


def test_what_is_behind_is_stopped_and_the_best_is_confirmed(sweeps: Sweeps, sweep: Shell) -> None:
    confirm = ["--confirm-top", "1", "--seeds", "0..1"]
    space = sweeps.space(epochs=4, search=SEARCH)
    code, _, err = sweeps.run("run", space, "--trials", "6", "--id", "stopped", *STOPPING, *confirm)
    assert code == 0, err
    store = sweeps.store("stopped")
    ran = sorted((row for row in rows(store) if row["started"]), key=lambda row: row["started"])
    stopped = [row for row in ran if row["state"] == "PRUNED"]
    assert stopped, err
    epochs = store.epochs().to_pylist()
    for row in stopped:
        assert row["value"] is None
        assert reached(row) == max(one["epoch"] for one in epochs if one["trial"] == row["key"]) in (1, 2)
    gaps = [(after["started"] - row["finished"]).total_seconds() for row, after in pairwise(ran) if row in stopped]
    assert max(gaps, default=0.0) < SECONDS
    for row in ran:
        for epoch, value in json.loads(row["intermediate"]).items():
            assert value == pytest.approx(value_at(store, row["key"], int(epoch)))
    best, *_ = store.configurations()
    seen = sorted((run["seed"], run["confirm"], reached(run)) for run in best["runs"])
    assert seen == [(0, False, 3), (1, True, 3)]
    assert sum(bool(row["confirm"]) for row in rows(store)) == 1
    tested = {row["trial"] for row in store.results().to_pylist() if row["split"] == "test"}
    assert {run["key"] for run in best["runs"]} < tested
    told = {verb: sweep(verb, "stopped") for verb in ("status", "best", "table", "report", "gc")} | {"ls": sweep("ls")}
    assert {answer.code for answer in told.values()} == {0}, told
    assert told["status"].out.count("PRUNED") == sum(row["state"] == "PRUNED" for row in rows(store))
    assert "confirmed value" in told["best"].out


def test_a_stopped_group_of_workers_frees_its_cpus(sweeps: Sweeps) -> None:
    space = sweeps.space(epochs=8, search=SEARCH)
    code, out, err = sweeps.run(
        "run", space, "--trials", "4", "--id", "group", "--workers", "2", *STOPPING, script="freed.py"
    )
    assert code == 0, err
    stopped = [row for row in rows(sweeps.store("group")) if row["state"] == "PRUNED"]
    freed = [json.loads(line)["freed"] for line in out.splitlines() if line.startswith('{"freed"')]
    assert 0 < len(freed) <= len(stopped), "of the last one the driver may end before"
    assert max(freed) < SECONDS
