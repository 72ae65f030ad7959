"""Ray's own cost per trial, on a cluster of our own: `python docs/measure_ray.py`. Prints one line a trial.

before: from the proposal to the worker's first line. after: from the worker's last line to the committed row."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from sweep import driver, layers
from sweep.progress import Progress
from sweep.settings import nest
from sweep.storage import Storage
from sweep.trial import Task

SMALL = {
    "dataset": "digits",
    "attacks": ["linf"],
    "attack_steps": 1,
    "train_size": 64,
    "eval_size": 20,
    "model.width": 2,
    "optimizer.epochs": 1,
    "pretraining.epochs": 1,
    "pretraining.clean_epochs": 0,
    "trials": 6,
}


class Clock(Progress):
    """Hears the planner and prints what Ray added to each trial."""

    def hear(self, event: str, task: Task, facts: Mapping[str, Any]) -> None:
        now = datetime.now(UTC)
        if event == "start":
            self.running[task.number] = {"since": now}
        elif event == "end":
            before = (facts["started"] - self.running[task.number]["since"]).total_seconds()
            after = (now - facts["finished"]).total_seconds()
            print(f"trial {task.number}: before {before:.2f} s, after {after:.2f} s, inside {facts['seconds']:.2f} s")


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with tempfile.TemporaryDirectory() as folder:
        sweep = layers.resolve("sat", nest({**SMALL, "workers": workers, "trials": 6 if workers == 1 else 2}))
        where = driver.Where(Storage(folder), max_concurrent=1)
        start = time.perf_counter()
        driver.drive(driver.create(sweep, where, "measured"), where, Clock(Console(stderr=True)))
        print(f"whole sweep: {time.perf_counter() - start:.1f} s with {workers} workers a trial, one trial at a time")


if __name__ == "__main__":
    main()
