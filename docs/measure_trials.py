"""What the service itself costs as a sweep grows: `python docs/measure_trials.py FOLDER [TRIALS [RUN OPTIONS]]`. Prints
Markdown.

Runs 500 trials that do next to nothing (one epoch on 10 images, one attack of one step) one at a time through
`python -m sweep run`, and looks at the driver and at all that it started (Ray and the workers) whenever it says that a
trial ended; then reads back what is stored. The search is the usual one, so Optuna's part is in the driver's seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from sweep.storage import Storage
from sweep.store import Store

ID = "trials"
SPACE = """\
method: sat
dataset: digits
attacks: [linf]
attack_steps: 1
train_size: 10
eval_size: 10
test_size: 10
model.width: 2
evaluation.num_steps: 1
optimizer.epochs: 1
pretraining.epochs: 1
pretraining.clean_epochs: 0
search:
  optimizer.lr: {low: 0.001, high: 0.1, log: true}
  optimizer.weight_decay: {low: 1.0e-5, high: 1.0e-2, log: true}
"""
EDGES = (1, 10, 100, 200, 300, 400, 500)


@dataclass(frozen=True)
class Moment:
    """When a trial ended: the clock, seconds of CPU of the driver and of all processes below it, and the driver's
    memory."""

    clock: float
    driver: float
    below: float
    memory: int


def moment(driver: psutil.Process, spent: dict[int, float]) -> Moment:
    """`spent` keeps what each process below has used, so that one that is gone still counts."""
    for process in driver.children(recursive=True):
        try:
            spent[process.pid] = _seconds(process)
        except psutil.Error:
            continue
    return Moment(time.perf_counter(), _seconds(driver), sum(spent.values()), driver.memory_info().rss)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def watched(command: list[str], folder: Path) -> tuple[int, list[Moment]]:
    """The exit code of a sweep, and a moment for each trial that it said it ended."""
    moments, spent = [], {}  # type: list[Moment], dict[int, float]
    with open(folder / "out", "w") as out, open(folder / "log", "w") as log:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)
        driver = psutil.Process(process.pid)
        for line in process.stderr or ():
            log.write(line)
            log.flush()
            if line.startswith("trial "):
                moments.append(moment(driver, spent))
        return process.wait(), moments


def show(moments: list[Moment]) -> None:
    print("| trials | seconds each | of CPU, driver | of CPU, Ray and workers | driver's memory then, MB |")
    print("|---|---|---|---|---|")
    ends = sorted({min(edge, len(moments)) for edge in EDGES})
    for first, last in pairwise(ends):
        before, after, n = moments[first - 1], moments[last - 1], last - first
        each = [(getattr(after, name) - getattr(before, name)) / n for name in ("clock", "driver", "below")]
        seconds = " | ".join(f"{value:.3f}" for value in each)
        print(f"| {first + 1} to {last} | {seconds} | {after.memory / 1e6:.0f} |")


def check(store: Store, trials: int) -> None:
    """Says what is stored; an error where it is not each trial once."""
    rows, plans = store.trials().to_pylist(), store.plans()
    keys = {row["key"] for row in rows}
    judged = Counter(row["trial"] for row in store.results(["trial", "split"]).to_pylist() if row["split"] == "val")
    trained = Counter(store.epochs(["trial"]).column("trial").to_pylist())
    attempts = Counter(row["attempts"] for row in rows)
    states = Counter(row["state"] for row in rows)
    print(f"\nstored: {len(plans)} plans, trials {json.dumps(states)}, attempts {dict(attempts)}, {len(keys)} keys")
    whole = [row["number"] for row in rows] == [plan["number"] for plan in plans] == list(range(trials))
    once = judged == dict.fromkeys(keys, 2) and trained == dict.fromkeys(keys, 1)  # clean and linf; one epoch
    if not (whole and once and set(states) == {"COMPLETE"}):
        raise SystemExit("not every trial is there once, COMPLETE, with its verdicts and its epoch")


def main() -> None:
    folder, trials, *options = Path(sys.argv[1]), *(sys.argv[2:] or ["500"])
    folder.mkdir(parents=True, exist_ok=True)
    space = folder / "space.yaml"
    space.write_text(SPACE)
    kept = ["--storage", str(folder / "results"), "--id", ID, "--trials", trials, "--max-concurrent", "1", *options]
    code, moments = watched([sys.executable, "-m", "sweep", "run", str(space), *kept], folder)
    show(moments)
    if code:
        raise SystemExit(f"the sweep ended with {code}: see {folder / 'log'}")
    check(Store(Storage(str(folder / "results")), ID), int(trials))


if __name__ == "__main__":
    main()
