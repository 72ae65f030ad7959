"""Real sweeps whose trials are stopped early."""

from __future__ import annotations

from collections.abc import Iterator
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


def trials(store: Store, *states: str) -> list[dict[str, Any]]:
    return [row for row in store.trials().to_pylist() if row["state"] in states]


def test_what_is_behind_is_stopped_and_the_best_is_confirmed(sweeps: Sweeps, sweep: Shell) -> None:
    confirm = ["--confirm-top", "1", "--seeds", "0..1"]
    space = sweeps.space(epochs=4, search=SEARCH)
    code, _, err = sweeps.run("run", space, "--trials", "6", "--id", "stopped", *STOPPING, *confirm)
    assert code == 0, err
    print(err)
    for row in sweeps.store("stopped").trials().to_pylist():
        print(
            {
                k: row[k]
                for k in (
                    "number",
                    "params",
                    "seed",
                    "confirm",
                    "state",
                    "value",
                    "intermediate",
                    "error",
                    "seconds",
                    "started",
                    "finished",
                )
            }
        )
    for verb in ("status", "ls", "best", "table", "report", "gc"):
        print(sweep(verb, *(["stopped"] if verb != "ls" else [])))
    raise AssertionError
