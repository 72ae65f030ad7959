"""Runs one trial of a sweep of digits in this process, under a fault: FOLDER hang|memory|none."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sweeps import SPACE
from torch import Tensor

from sweep import driver, starting, trial
from sweep.candidates import hashed
from sweep.layers import resolve
from sweep.settings import nest
from sweep.storage import Storage
from sweep.store import Store
from sweep.trial import Job, Task
from trainers.data import ImageSet
from trainers.models import io
from trainers.workers import Workers

FAULTS = ("hang", "memory", "none")
ROOM = 950 << 20
"""Bytes that the process may take, under the fault `memory`, beyond what it has when the trial begins."""


def starve() -> None:
    """From now on an image that is looked at needs 16 MiB: there is room for 40 at a time, and none for 80."""
    floats = ImageSet.floats

    def hungry(self: ImageSet, rows: Tensor) -> Tensor:
        torch.empty(len(rows) << 24, dtype=torch.uint8)
        return floats(self, rows)

    ImageSet.floats = hungry  # type: ignore[method-assign]
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, resource.RLIM_INFINITY))


MANY = {"eval_size": 80, "evaluation": {"batch_size": 80}}


def hang(metrics: dict[str, Any]) -> bool:
    time.sleep(1000)
    return True


def main(folder: Path, fault: str) -> None:
    space = folder / "space.yaml"
    space.write_text(SPACE.format(method="sat", epochs=2, search="  {}"))
    sweep = resolve(str(space), MANY if fault == "memory" else nest({}))
    images = driver.load(sweep.trial, None)
    init = io.dumps(starting.fresh_model(sweep.trial, images))
    store = Store(Storage(str(folder / "results")), "s")
    document = json.loads(json.dumps(sweep.model_dump(mode="json")))
    if not store.folder.exists("sweep.json"):
        store.create({"trials": 1, "spec": document})
    seconds = 5.0 if fault == "hang" else 60.0
    job = Job(store.storage.uri, "s", document, hashed(init), images.fingerprint, "", seconds)
    torch.optim.SGD([torch.zeros(1)])  # the first one imports for seconds
    if fault == "memory":
        starve()
    report = hang if fault == "hang" else lambda metrics: True
    print(json.dumps(trial.run(job, Task(0, {}, "key", 0), images, init, Workers(), report)))


if __name__ == "__main__":
    assert sys.argv[2] in FAULTS
    main(Path(sys.argv[1]), sys.argv[2])
