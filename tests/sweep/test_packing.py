"""Several trials on a GPU: how many, who says so, what is refused. There is no GPU here: that Ray runs so many at
once is seen on one that it was only told of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sweeps import DEADLINE_SECONDS, Sweeps

from attacks.errors import InputError
from sweep import memory
from sweep.control import Control
from sweep.engine import allotted
from sweep.layers import resolve
from sweep.packing import Packing, fitting, share
from sweep.planner import Planner
from sweep.settings import nest
from sweep.storage import Storage
from sweep.store import Store
from sweep.trial import Job

GIB = 1 << 30


@pytest.mark.parametrize("trials", [1, 2, 3, 6, 7, 16, 48, 100, 9999, 10_000])
def test_so_many_shares_fit_on_a_gpu_as_ray_counts_and_one_more_does_not(trials: int) -> None:
    parts = round(share(trials) * 10_000)
    assert parts == pytest.approx(share(trials) * 10_000)
    assert trials * parts <= 10_000 < (trials + 1) * parts or trials > 100
    assert allotted({"CPU": 20_000.0, "GPU": 1.0}, 1, share(trials), 0, 1, False).max_concurrent >= trials


def test_so_many_trials_fit_in_a_gpu_s_memory() -> None:
    assert fitting(80 * GIB, 10 * GIB, 100) == 6, "12 GiB with the margin, and what a process holds beside"
    assert fitting(80 * GIB, 10 * GIB, 4) == 4
    assert fitting(80 * GIB, 70 * GIB, 100) == 1
    assert fitting(80 * GIB, 79 * GIB, 100) == 1, "one did run"


def test_what_a_worker_gets() -> None:
    total = {"CPU": 16.0, "GPU": 2.0}
    assert allotted(total, 1, None, 0, 1, False).max_concurrent == 2
    assert allotted(total, 1, share(3), 0, 1, False).max_concurrent == 6
    assert allotted(total, 4, share(3), 0, 1, False).max_concurrent == 4
    assert allotted(total, 1, share(3), 5, 1, False).max_concurrent == 5
    packed = allotted(total, 2, None, 0, 1, True)
    assert (packed.gpus, packed.max_concurrent, packed.all_gpus) == (1.0, 8, 2)
    assert allotted(total, 1, 1.0, 0, 2, False).max_concurrent == 1


@pytest.mark.parametrize(
    ("total", "gpus", "workers", "packed", "message"),
    [
        ({"CPU": 8, "GPU": 2}, 0.5, 2, False, "expected whole GPUs for trials of 2 workers, got 0.5 GPUs each: "),
        ({"CPU": 8, "GPU": 2}, None, 2, True, "expected whole GPUs for trials of 2 workers, got trials packed on "),
        ({"CPU": 8}, None, 1, True, "expected GPUs for --trials-per-gpu auto, the cluster has none: leave it out"),
        ({"CPU": 8}, 0.5, 1, False, "expected at least 0.5 GPUs for a trial of 1 workers, the cluster has 0: "),
    ],
)
def test_what_cannot_be_packed_is_refused(
    total: dict[str, float], gpus: float | None, workers: int, packed: bool, message: str
) -> None:
    with pytest.raises(InputError) as refused:
        allotted(total, 1, gpus, 0, workers, packed)
    assert str(refused.value).startswith(message)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    sweep = resolve("sat", nest({"dataset": "digits", "trials": 6}))
    store = Store(Storage(str(tmp_path)), "s")
    store.create({"trials": sweep.trials})
    return Job(store.storage.uri, "s", json.loads(json.dumps(sweep.model_dump(mode="json"))), "init", "data", "")


def planner(job: Job) -> Planner:
    packing = Packing(1.0, 80 * GIB, most=8, gpus=2)
    return Planner(job, lambda *_: None, Control(job.store.folder, "owner", gpus=1.0), packing=packing)


def ends(planner: Planner, trial: str, peak: int, state: str = "COMPLETE") -> None:
    outcome = {"state": state, "value": 0.5, "seconds": 3600.0, "peak_memory": peak}
    planner.on_trial_complete(trial, {"outcome": json.dumps(outcome)})


def test_trials_have_whole_gpus_until_one_has_told_what_it_takes(job: Job) -> None:
    first = planner(job)
    assert first.suggest("a")["gpus"] == first.suggest("b")["gpus"] == 1.0
    assert first.suggest("c") is None, "two GPUs, and no trial is measured"
    ends(first, "a", GIB, "FAILED")
    assert first.suggest("c")["gpus"] == 1.0
    assert first.suggest("d") is None
    ends(first, "b", 10 * GIB)
    assert first.control.gpus == share(6), "GPU-hours count from here on by the share"
    assert [first.suggest(trial)["gpus"] for trial in "de"] == [share(6)] * 2
    ends(first, "c", 5 * GIB)
    ends(first, "d", 20 * GIB)
    assert first.suggest("f")["gpus"] == share(3), "the largest so far counts"
    assert planner(job).suggest("a")["gpus"] == share(3), "a new driver reads it from the store"
    assert [row["peak_memory"] for row in job.store.ended()] == [GIB, 10 * GIB, 5 * GIB, 20 * GIB]


def test_the_peak_is_of_what_ran_since_watch() -> None:
    memory.forget()
    quiet = memory.peak()
    big = np.ones(40_000_000)  # 320 MB
    assert memory.peak() > quiet + 250_000_000
    del big
    memory.forget()
    assert memory.peak() < quiet + 100_000_000
    assert memory.total() > memory.peak() > 0


@pytest.mark.ray
def test_two_trials_share_the_gpu_once_the_first_has_told_what_it_takes(tmp_path: Path) -> None:
    sweeps = Sweeps(tmp_path)
    kept = ["--storage", str(tmp_path / "results"), "--id", "packed"]
    trials = ["--trials", "5", "--trials-per-gpu", "auto", *kept]
    command = [sys.executable, str(Path(__file__).with_name("fake_gpus.py")), "run", sweeps.space(epochs=6), *trials]
    ended = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert ended.returncode == 0, ended.stderr
    rows = sweeps.store("packed").trials().to_pylist()
    assert {row["state"] for row in rows} == {"COMPLETE"}
    assert all(row["peak_memory"] > 100_000_000 for row in rows), "its process had torch loaded"
    together = [b["number"] for a, b in pairwise(rows) if b["started"] < a["finished"]]
    assert together, "of the trials after the first two ran at once"
    assert 1 not in together, "the first had the GPU for itself"
