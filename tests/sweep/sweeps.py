"""Real sweeps of a toy size, run by real processes: what tests/sweep/test_run*.py share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.storage import Storage
from sweep.store import Store

SPACE = """\
method: {method}
dataset: digits
attacks: [linf, l1, blur]
attack_steps: 1
train_size: 96
eval_size: 40
model.width: 2
evaluation.num_steps: 2
optimizer.epochs: {epochs}
optimizer.batch_size: 32
pretraining.clean_epochs: 1
pretraining.epochs: 1
search:
{search}
"""
LR = "  optimizer.lr: {low: 0.005, high: 0.3, log: true}"
DEADLINE_SECONDS = 240


def planned(key: str, method: str = "sat", seed: int = 0, **params: Any) -> dict[str, Any]:
    """The plan of a configuration with one run."""
    return {"method": method, "params": params, "runs": [{"key": key, "seed": seed, "replay": None}]}


@dataclass
class Sweeps:
    """A folder of sweeps. Every process that it starts is ended with its test."""

    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def space(self, method: str = "sat", epochs: int = 2, search: str = LR) -> str:
        path = self.folder / f"{method}-{epochs}.yaml"
        path.write_text(SPACE.format(method=method, epochs=epochs, search=search))
        return str(path)

    def store(self, sweep_id: str) -> Store:
        return Store(Storage(str(self.folder / "results")), sweep_id)

    def start(self, *arguments: str, script: str | None = None) -> subprocess.Popen[bytes]:
        """`python -m sweep ...`, or a script beside this file that does that, in the background, in a session of its
        own; it writes <folder>/out and log."""
        environment = {**os.environ, "SWEEP_STORAGE": str(self.folder / "results"), "OMP_NUM_THREADS": "1"}
        environment.pop("RAY_ADDRESS", None)
        environment |= self.environment
        program = ["-m", "sweep"] if script is None else [str(Path(__file__).with_name(script))]
        command = [sys.executable, *program, *arguments]
        with open(self.folder / "out", "w") as out, open(self.folder / "log", "w") as log:
            process = subprocess.Popen(command, stdout=out, stderr=log, env=environment, start_new_session=True)
        self.running.append(process)
        return process

    def run(
        self, *arguments: str, seconds: float = DEADLINE_SECONDS, script: str | None = None
    ) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of `python -m sweep ...`, which may take so long."""
        process = self.start(*arguments, script=script)
        process.wait(seconds)
        return process.returncode, (self.folder / "out").read_text(), (self.folder / "log").read_text()

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Until something is true of a running process's work; fails when the process ends or the time is up first."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert process.poll() is None, f"the process ended with {process.returncode} before"
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
