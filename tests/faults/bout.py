"""A sweep of short trials on a cluster, by real processes, to which faults are done."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "sweep"))

from nodes import RAY, Cluster
from sweeps import Sweeps

from sweep.store import COMPLETE, FAILED, PLANNED, Store

DEADLINE_SECONDS = 1200
PATIENCE = ("--hang-limit", "45s")
FEW = ("--train-size", "64", "--eval-size", "20", "--set", "test_size=20")
RESUMES = 5
"""How often a sweep may have to be gone on with after its last fault."""
MOST_STEPS, LONGEST_WAIT = 5, 1.0
"""After how many steps of a sweep (an epoch, a trial's end), and seconds more, a fault comes at the latest."""
Versions = dict[str, set[tuple[int, int]]]


@dataclass(frozen=True)
class Shape:
    """What a sweep under faults is."""

    trials: int = 8
    epochs: int = 4
    workers: int = 1

    def arguments(self, sweeps: Sweeps) -> list[str]:
        plan = ["--trials", str(self.trials), "--workers", str(self.workers), "--set", "searcher=random"]
        return [sweeps.space(epochs=self.epochs), *plan, *FEW]


@dataclass
class Bout:
    """One sweep. Of `log`, what its last driver wrote."""

    cluster: Cluster
    folder: Path
    sweep_id: str
    shape: Shape
    rng: random.Random
    sweeps: Sweeps = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)
    logs: list[str] = field(default_factory=list)
    seen: str = ""

    def __post_init__(self) -> None:
        self.sweeps = Sweeps(self.folder, environment=RAY)

    @property
    def store(self) -> Store:
        return self.sweeps.store(self.sweep_id)

    @property
    def results(self) -> Path:
        """The storage, a link to `disk`."""
        return self.folder / "results"

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def root(self) -> Path:
        return self.disk / self.sweep_id

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def begin(self) -> None:
        self._start("run", *self.shape.arguments(self.sweeps), "--id", self.sweep_id)

    def resume(self, *more: str) -> None:
        self.process.wait(DEADLINE_SECONDS)
        self.logs.append(self.log)
        self._start("resume", self.sweep_id, *more)

    def beside(self, *arguments: str) -> tuple[int, str]:
        """Exit code and errors of another `python -m sweep ...` on the same storage."""
        other = Sweeps(self.folder / "beside", environment=RAY | {"SWEEP_STORAGE": str(self.results)})
        other.folder.mkdir(exist_ok=True)
        try:
            code, _, said = other.run(*arguments)
        finally:
            other.end()
        return code, said

    def logged(self, key: str, text: str) -> bool:
        """Whether a run's log has it."""
        try:
            return text in (self.root / "logs" / f"{key}.txt").read_text()
        except OSError:
            return False

    def until(self, true: Callable[[], bool]) -> bool:
        """Waits for it; False where the driver ended before."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.process.poll() is None:
            if true():
                return True
            assert time.monotonic() < deadline, f"timed out: {self.log[-2000:]}"
            time.sleep(0.05)
        return False

    def moment(self) -> bool:
        """A random one some steps on; False where the driver ended before."""

        def stepped() -> bool:
            before, self.seen = self.seen, self._steps()
            return before != self.seen

        steps = self.rng.randint(1, MOST_STEPS)
        return all(self.until(stepped) for _ in range(steps)) and self._lasts(self.rng.uniform(0, LONGEST_WAIT))

    def end(self) -> int:
        """Lets the sweep end, gone on with as often as needed: the last exit code. A run whose process was killed more
        often than it is started again FAILED: it is retried, as a user would."""
        for _ in range(RESUMES):
            code = self.process.wait(DEADLINE_SECONDS)
            if code == 0:
                break
            self.resume(*(["--retry-failed"] if code == 3 else []))
        self.logs.append(self.log)
        return self.process.returncode

    def stop(self) -> None:
        self.sweeps.end()

    def _start(self, *arguments: str) -> None:
        self.process = self.sweeps.start(*arguments, *PATIENCE, "--address", self.cluster.address)

    def _lasts(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _steps(self) -> str:
        """Changes with every epoch and every trial that ends."""
        kept = (one.name for folder in ("checkpoints/*/*", "parquet/trials/*") for one in self.root.glob(folder))
        return " ".join(sorted(name for name in kept if ".tmp-" not in name))


@dataclass
class Account:
    """What became of sweeps' runs. `equal`: with the configuration and the value of an undisturbed sweep."""

    planned: int = 0
    finished: int = 0
    failed: int = 0
    lost: int = 0
    doubled: int = 0
    equal: int = 0

    def __add__(self, other: Account) -> Account:
        return Account(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def sound(self) -> bool:
        return not self.lost and not self.doubled and self.equal == self.finished


def lead(link: Path, to: Path) -> None:
    """Makes the link lead there, at once."""
    new = link.with_name(f"{link.name}-new")
    new.symlink_to(to)
    os.replace(new, link)


def values(store: Store) -> dict[int, Any]:
    return {
        row["number"]: (row["params"], row["key"], row["value"])
        for row in store.trials().to_pylist()
        if row["state"] == COMPLETE
    }


def account(bout: Bout, endings: Versions, undisturbed: dict[int, Any]) -> Account:
    """A run is doubled where its outcome was written more than once, or its epochs or its verdicts are there twice."""
    rows, found = bout.store.trials().to_pylist(), values(bout.store)
    states = [row["state"] for row in rows]
    epochs: dict[str, list[int]] = defaultdict(list)
    for row in bout.store.epochs().to_pylist():
        epochs[row["trial"]].append(row["epoch"])
    judged = [
        row["trial"] for row in bout.store.results().to_pylist() if row["split"] == "val" and row["attack"] == "clean"
    ]
    whole = list(range(1, bout.shape.epochs + 1))
    keys = [key for _, key, _ in found.values()]
    return Account(
        planned=len(rows),
        finished=len(found),
        failed=states.count(FAILED),
        lost=max(bout.shape.trials - len(rows), 0) + states.count(PLANNED),
        doubled=sum(len(endings[key]) > 1 or epochs[key] != whole or judged.count(key) != 1 for key in keys),
        equal=sum(undisturbed.get(number) == value for number, value in found.items()),
    )


@contextmanager
def watched(root: Path) -> Iterator[Versions]:
    """The versions of each run's outcome.json that were there at some time: a run that is trained to its end twice
    writes it twice."""
    found: Versions = defaultdict(set)
    over = threading.Event()

    def look() -> None:
        for path in root.glob("checkpoints/*/outcome.json"):
            try:
                about = path.stat()
            except OSError:
                continue
            found[path.parent.name].add((about.st_ino, about.st_mtime_ns))

    def watch() -> None:
        while not over.wait(0.1):
            try:
                look()
            except OSError:  # a storage that is away
                continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
        look()
