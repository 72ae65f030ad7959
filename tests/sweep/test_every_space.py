"""Every file in search_spaces/ is run by the service: see every_space.py."""

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

from sweep import spaces
from sweep.storage import Storage
from sweep.store import COMPLETE, Store


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
    command = [sys.executable, str(script), str(folder), *spaces.names()]
    with (
        open(folder / "log", "w") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        yield Ended(map(json.loads, process.stdout))
        process.terminate()


@pytest.mark.ray
@pytest.mark.parametrize("space", spaces.names())
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
