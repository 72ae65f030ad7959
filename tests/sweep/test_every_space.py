"""Every file in search_spaces/ runs: the spaces and the experiments through the whole service (see every_space.py), of
the papers' grids the first and the last cell by what a worker does for a trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from every_space import is_experiment

from sweep import driver, spaces, starting, trial
from sweep.candidates import hashed
from sweep.layers import resolve
from sweep.spaces import PAPERS
from sweep.storage import Storage
from sweep.store import COMPLETE, Store
from sweep.trial import Job, Task
from trainers.models import io
from trainers.workers import Workers

GRIDS = [name for name in spaces.names() if name.startswith(f"{PAPERS}/") and not is_experiment(name)]
SERVED = [name for name in spaces.names() if name not in GRIDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spaces")


@dataclass
class Ended:
    """What became of each space, by its name, as they end."""

    told: Iterator[dict[str, Any]]
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __getitem__(self, space: str) -> dict[str, Any]:
        while space not in self.known:
            told = next(self.told)
            self.known[told["space"]] = told
        return self.known[space]


@pytest.fixture(scope="module")
def ended(folder: Path) -> Iterator[Ended]:
    script = Path(__file__).with_name("every_space.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, str(script), str(folder), *SERVED]
    with (
        open(folder / "log", "w") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        yield Ended(map(json.loads, process.stdout))
        process.terminate()


@pytest.mark.ray
@pytest.mark.parametrize("space", SERVED)
def test_a_space_runs(space: str, ended: Ended, folder: Path) -> None:
    told = ended[space]
    assert told["code"] == 0, told["err"]
    store = Store(Storage(str(folder)), space.replace("/", "-"))
    rows = store.trials().to_pylist()
    assert rows
    assert {row["state"] for row in rows} == {COMPLETE}
    if is_experiment(space):
        return
    assert len(rows) == min(2, store.document()["trials"])
    judged = [row["trial"] for row in store.results().to_pylist() if row["split"] == "test"]
    assert len(set(judged)) >= 2, "the pre-trained model and the best one"


@pytest.mark.parametrize("space", GRIDS)
def test_a_papers_grid_trains_and_judges(space: str, folder: Path) -> None:
    sweep = resolve(space, {"dataset": "digits", "seeds": [0]}, "smoke")
    images = driver.load(sweep.trial, None)
    init = io.dumps(starting.fresh_model(sweep.trial, images))
    document = json.loads(json.dumps(sweep.model_dump(mode="json")))
    job = Job(str(folder), space.replace("/", "-"), document, hashed(init), images.fingerprint, "")
    for number in dict.fromkeys((0, sweep.trials - 1)):
        params = sweep.cell(number)
        task = Task(number, params, job.key(sweep.configure(params, 0)), 0)
        outcome = trial.run(job, task, images, init, Workers(), lambda metrics: True)
        assert outcome is not None
        assert outcome["state"] == COMPLETE, outcome["error"]
        driver.judge_on_test(job, init, images.test, task)
        judged = job.store.results().to_pylist()
        mine = {row["split"] for row in judged if row["trial"] == task.key}
        assert mine == {"val", "test"}
