"""A trial that hangs, or for which there is not enough memory, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep import logs
from sweep.storage import Storage
from sweep.watchdog import EXIT_HUNG


def run(folder: Path, fault: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("one_trial.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(folder), fault]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def log(folder: Path) -> str:
    return "\n".join(logs.read(Storage(str(folder / "results" / "s")), "key"))


def told(said: str, what: str) -> str:
    """The first line that holds this, without its time."""
    return next(line.partition(" ")[2] for line in said.splitlines() if what in line)


def test_one_that_hangs_ends_its_process_and_the_next_goes_on_where_it_was(tmp_path: Path) -> None:
    hung = run(tmp_path, "hang")
    assert hung.returncode == EXIT_HUNG, hung.stderr
    said = log(tmp_path)
    assert "attempt 1 of trial 0, seed 0" in said
    assert "epoch 1 of 2" in said
    assert "time.sleep(1000)" in said, "where it stood"
    assert said.splitlines()[-1].endswith("no progress for 5 s: this process ends itself")
    again = run(tmp_path, "none")
    outcome = json.loads(again.stdout)
    assert (outcome["state"], outcome["attempts"]) == ("COMPLETE", 2), again.stderr
    first, second = log(tmp_path).split("attempt 2 of trial 0")
    assert "epoch 2 of 2" in second
    assert told(second, "epoch 1 of 2") == told(first, "epoch 1 of 2"), "the epoch before was trained again"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_one_without_memory_for_its_judging_is_gone_on_with_by_halves(tmp_path: Path) -> None:
    short = run(tmp_path, "memory")
    outcome = json.loads(short.stdout)
    assert (outcome["state"], outcome["attempts"]) == ("COMPLETE", 1), outcome
    said = log(tmp_path)
    assert "out of memory: going on with 40 images judged at a time, not 80" in said
    assert said.count("epoch 1 of 2") == 1, "what was trained was trained again"
    assert "DefaultCPUAllocator" in said
