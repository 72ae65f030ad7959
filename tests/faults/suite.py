"""Faults done to running sweeps at random moments, and what came of the sweeps.

    python tests/faults/suite.py [--short | --only WORD] [--times N] [--seed N] [--write docs/reliability.md]

Every sweep has the search and the seed of one that nothing was done to, whose values it must have. Exit code 1 where a
trial was lost, was run twice, or has another value."""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from nodes import RAY, Cluster

os.environ |= RAY

from bout import Account, Bout, Shape, account, lead, values, watched
from catalogue import FAULTS, SHORT, Fault

FREE_SECONDS = 30
"""Until what a sweep held of its cluster must be free after its end."""
BARREN = 5
"""So many sweeps in a row may end before the fault comes."""
BEGIN, END = "<!-- faults -->\n", "<!-- /faults -->\n"


@dataclass
class Outcome:
    """Of one fault: how often it was done, and the account of the sweeps to which it was."""

    name: str
    times: int = 0
    sweeps: int = 0
    account: Account = field(default_factory=Account)

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.name, self.times + other.times, self.sweeps + 1, self.account + other.account)


@dataclass
class Arena:
    """A cluster, a folder, and the values of the undisturbed sweeps of each shape. `wrong`: what went wrong."""

    cluster: Cluster
    folder: Path
    rng: random.Random
    undisturbed: dict[Shape, dict[int, Any]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    whole: Outcome = field(default_factory=lambda: Outcome("**all**"))
    wrong: list[str] = field(default_factory=list)
    made: int = 0
    until: float = math.inf

    def expected(self, shape: Shape) -> dict[int, Any]:
        if shape not in self.undisturbed:
            with storage(self.folder / "still", mounted=False) as folder:
                bout = self._bout(shape, folder)
                bout.begin()
                try:
                    assert bout.end() == 0, bout.log
                finally:
                    bout.stop()
                self.undisturbed[shape] = values(bout.store)
        return self.undisturbed[shape]

    def strike(self, faults: list[Fault]) -> None:
        """Sweeps of one shape, one after the other, until each fault has come as often as it is to, in random order."""
        left = [fault for fault in faults for _ in range(fault.times)]
        self.rng.shuffle(left)
        barren, shape = 0, faults[0].shape
        expected = self.expected(shape)
        with storage(self.folder / "struck", any(fault.mounted for fault in faults)) as folder:
            while left and barren < BARREN and time.monotonic() < self.until:
                before = len(left)
                self._sweep(self._bout(shape, folder), left, expected)
                barren = 0 if len(left) < before else barren + 1
        for name, times in Counter(fault.name for fault in left).items():
            self._say(f"WRONG: {name}: {times} times not done")

    def _sweep(self, bout: Bout, left: list[Fault], expected: dict[int, Any]) -> None:
        done: Counter[str] = Counter()
        bout.begin()
        try:
            with watched(bout.root) as endings:
                while left and time.monotonic() < self.until and self._injected(bout, left[0]):
                    done[left.pop(0).name] += 1
                code = bout.end()
            found = account(bout, endings, expected)
        except Exception:  # the suite goes on with the next sweep
            self._say(f"WRONG: {bout.sweep_id}: {traceback.format_exc()}\n{bout.log[-1000:]}")
            return
        finally:
            bout.stop()
        for name, times in done.items():
            self.outcomes[name] = self.outcomes.get(name, Outcome(name)) + Outcome(name, times, 1, found)
        self.whole += Outcome("", sum(done.values()), 1, found)
        self._say(f"{bout.sweep_id}: exit code {code}, {found}")
        if code:
            self._say(f"WRONG: {bout.log[-1000:]}")
        if held := self._held():
            self._say(f"WRONG: not free {FREE_SECONDS} s after its end: {held}")

    def _injected(self, bout: Bout, fault: Fault) -> bool:
        try:
            came = fault.inject(bout)
        except Exception:
            self._say(f"WRONG: {fault.name}: {traceback.format_exc()}\n{bout.log[-1000:]}")
            came = True
        if came:
            self._say(f"{bout.sweep_id}: {fault.name}")
        return came

    def _say(self, line: str) -> None:
        print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)
        self.wrong += [line] if line.startswith("WRONG") else []

    def _held(self) -> str:
        deadline = time.monotonic() + FREE_SECONDS
        while (held := self.cluster.busy()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return held

    def _bout(self, shape: Shape, folder: Path) -> Bout:
        self.made += 1
        return Bout(self.cluster, folder, f"s{self.made}", shape, random.Random(self.rng.random()))


@contextmanager
def storage(folder: Path, mounted: bool) -> Iterator[Path]:
    """The folder of sweeps, with `results`, a link to `disk`: where `mounted` a file system of its own, of 64 MiB."""
    folder = folder.with_name(f"{folder.name}-mounted") if mounted else folder
    disk = folder / "disk"
    disk.mkdir(parents=True, exist_ok=True)
    lead(folder / "results", disk)
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


@contextmanager
def arena(seed: int) -> Iterator[Arena]:
    cluster = Cluster()
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            cluster.start()
            yield Arena(cluster, Path(folder), random.Random(seed))
    finally:
        cluster.end()


COLUMNS = ("planned", "finished", "failed", "lost", "doubled", "equal")


def table(made: Arena, faults: Sequence[Fault]) -> str:
    rows = [made.outcomes.get(fault.name, Outcome(fault.name)) for fault in faults]
    head = ["fault", "times injected", "sweeps", *COLUMNS]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for row in (*rows, made.whole):
        counts = [row.times, row.sweeps, *(getattr(row.account, column) for column in COLUMNS)]
        lines.append([row.name, *map(str, counts)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def where(seed: int, seconds: float) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "optuna", "pyarrow"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores ({platform.machine()}), Python "
        f"{platform.python_version()}, {versions}; seed {seed}, {seconds / 60:.0f} minutes.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="faults whose name has this in it (more than once: any)")
    parser.add_argument("--short", action="store_true", help="four faults in one sweep, as in CI")
    parser.add_argument("--times", type=int, help="how often to do each; default: the catalogue's number")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no more faults are done")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the moments")
    parser.add_argument("--write", type=Path, help="the document to put the table into")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    chosen = [one for one in FAULTS if not options.only or any(word in one.name for word in options.only)]
    faults = SHORT if options.short else [replace(one, times=options.times or one.times) for one in chosen]
    began = time.monotonic()
    with arena(options.seed) as made:
        made.until = began + 60 * options.minutes
        for _, alike in groupby(faults, key=lambda fault: fault.shape):
            made.strike(list(alike))
        text = f"{table(made, faults)}\n{where(options.seed, time.monotonic() - began)}"
    print(text)
    if options.write:
        before, _, rest = options.write.read_text().partition(BEGIN)
        options.write.write_text(before + BEGIN + text + END + rest.partition(END)[2])
    return 0 if made.whole.account.sound() and not made.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
