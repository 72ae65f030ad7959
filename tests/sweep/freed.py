"""`sweep run ...` whose driver also measures how long the CPUs of a trial that is stopped early stay taken: a line of
JSON for each, on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from threading import Thread
from typing import Any

import ray

from sweep import cli
from sweep.progress import Progress
from sweep.trial import Task

DEADLINE_SECONDS = 60


def measure() -> None:
    """Until every CPU of the cluster is free, from now on."""
    total, begun = ray.cluster_resources()["CPU"], time.monotonic()
    while ray.available_resources().get("CPU", 0.0) < total and time.monotonic() - begun < DEADLINE_SECONDS:
        time.sleep(0.05)
    print(json.dumps({"freed": time.monotonic() - begun}), flush=True)


def hear(self: Progress, event: str, task: Task, facts: Mapping[str, Any]) -> None:
    plain(self, event, task, facts)
    if facts.get("state") == "PRUNED":
        Thread(target=measure).start()


if __name__ == "__main__":
    plain = Progress.hear
    Progress.hear = hear  # type: ignore[method-assign]
    sys.argv[0] = "sweep"
    cli.main()
