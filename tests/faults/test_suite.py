"""The short form of suite.py, by a process of its own: Ray takes its settings once a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.ray
def test_nothing_is_lost_or_done_twice_whatever_dies() -> None:
    suite = Path(__file__).with_name("suite.py")
    done = subprocess.run([sys.executable, str(suite), "--short"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout[: done.stdout.index("\n\n")].splitlines()[-1]
    assert [int(cell) for cell in last.split("|")[2:-1]] == [4, 1, 8, 8, 0, 0, 0, 8], done.stdout
