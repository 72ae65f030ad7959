"""`sweep run SPACE --trials 2` for every file in search_spaces/, on digits under the smoke profile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from sweep import spaces
from sweep.settings import read_yaml
from sweep.storage import Storage
from sweep.store import COMPLETE, Store

Ended = subprocess.CompletedProcess[str]


def is_experiment(space: str) -> bool:
    return "experiment" in read_yaml(spaces.read(space), space)


def run(space: str, folder: Path) -> Ended:
    where = ["--id", space.replace("/", "-"), "--storage", str(folder)]
    few = ["--profile", "smoke", "--dataset", "digits", "--seeds", "0", "--max-concurrent", "1"]
    command = [sys.executable, "-m", "sweep", "run", space, "--trials", "2", *where]
    command += [] if is_experiment(space) else few
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spaces")


@pytest.fixture(scope="module")
def ended(folder: Path) -> Iterator[dict[str, Future[Ended]]]:
    """Two at a time; a starting model is pre-trained once and kept in the storage."""
    with ThreadPoolExecutor(2) as pool:
        yield {space: pool.submit(run, space, folder) for space in spaces.names()}


@pytest.mark.ray
@pytest.mark.parametrize("space", spaces.names())
def test_a_space_runs(space: str, ended: dict[str, Future[Ended]], folder: Path) -> None:
    process = ended[space].result()
    assert process.returncode == 0, process.stderr
    store = Store(Storage(str(folder)), space.replace("/", "-"))
    rows = store.trials().to_pylist()
    assert rows
    assert {row["state"] for row in rows} == {COMPLETE}
    if is_experiment(space):
        return
    assert len(rows) == min(2, store.document()["trials"])
    judged = [row["trial"] for row in store.results().to_pylist() if row["split"] == "test"]
    assert len(set(judged)) >= 2, "the pre-trained model and the best one"
