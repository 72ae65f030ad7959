"""Faults done to running sweeps at random moments, and what came of the sweeps.

    python tests/faults/suite.py [--short | --only WORD] [--times N] [--seed N] [--write docs/reliability.md]

Every sweep has the search and the seed of one that nothing was done to, whose values it must have. Exit code 1 where a
trial was lost, was run twice, or has another value."""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
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
    """Of one fault, over all its sweeps."""

    fault: Fault
    times: int = 0
    sweeps: int = 0
    account: Account = field(default_factory=Account)
    wrong: list[str] = field(default_factory=list)

    def sound(self) -> bool:
        return self.account.sound() and not self.wrong


@dataclass
class Arena:
    """A cluster, a folder, and the values of the undisturbed sweeps of each shape."""

    cluster: Cluster
    folder: Path
    rng: random.Random
    undisturbed: dict[Shape, dict[int, Any]] = field(default_factory=dict)
    made: int = 0

    def expected(self, shape: Shape) -> dict[int, Any]:
        if shape not in self.undisturbed:
            with storage(self.folder / "still", mounted=False) as folder:
                bout = self._bout(shape, folder)
                bout.begin()
                code = bout.end()
                assert code == 0, bout.log
                self.undisturbed[shape] = values(bout.store)
        return self.undisturbed[shape]

    def strike(self, fault: Fault, times: int) -> Outcome:
        """Sweeps, one after the other, until the fault has been done so often."""
        outcome = Outcome(fault)
        expected, barren = self.expected(fault.shape), 0
        with storage(self.folder / "struck", fault.mounted) as folder:
            while outcome.times < times and barren < BARREN and not outcome.wrong:
                before = outcome.times
                self._sweep(outcome, times, self._bout(fault.shape, folder, fault.options), expected)
                barren = 0 if outcome.times > before else barren + 1
        return outcome

    def _sweep(self, outcome: Outcome, times: int, bout: Bout, expected: dict[int, Any]) -> None:
        outcome.sweeps += 1
        bout.begin()
        try:
            with watched(bout.root) as endings:
                while outcome.times < times and outcome.fault.inject(bout):
                    outcome.times += 1
                code = bout.end()
            outcome.account += account(bout, endings, expected)
            if code:
                outcome.wrong.append(f"{bout.sweep_id} ended with exit code {code}: {bout.log[-1000:]}")
            if held := self._held():
                outcome.wrong.append(f"{bout.sweep_id}: not free {FREE_SECONDS} s after its end: {held}")
        except Exception:  # the suite goes on with the next fault
            outcome.wrong.append(f"{bout.sweep_id}: {traceback.format_exc()}\n{bout.log[-1000:]}")
        finally:
            bout.stop()

    def _held(self) -> str:
        deadline = time.monotonic() + FREE_SECONDS
        while (held := self.cluster.busy()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return held

    def _bout(self, shape: Shape, folder: Path, options: tuple[str, ...] = ()) -> Bout:
        self.made += 1
        return Bout(self.cluster, folder, f"s{self.made}", shape, random.Random(self.rng.random()), options)


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


def table(outcomes: list[Outcome]) -> str:
    total = sum((one.account for one in outcomes), Account())
    rows = [(one.fault.name, one.times, one.sweeps, one.account) for one in outcomes]
    rows.append(("**all**", sum(one.times for one in outcomes), sum(one.sweeps for one in outcomes), total))
    head = ["fault", "times injected", "sweeps", *COLUMNS]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    lines += [
        [name, str(times), str(sweeps), *(str(getattr(a, c)) for c in COLUMNS)] for name, times, sweeps, a in rows
    ]
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
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--write", type=Path, help="the document to put the table into")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    chosen = [one for one in FAULTS if not options.only or any(word in one.name for word in options.only)]
    if options.short:
        chosen = [SHORT]
    began, outcomes = time.monotonic(), []
    with arena(options.seed) as made:
        for fault in chosen:
            fault = replace(fault, times=options.times or fault.times)
            outcomes.append(made.strike(fault, fault.times))
            _tell(outcomes[-1], time.monotonic() - began)
    text = f"{table(outcomes)}\n{where(options.seed, time.monotonic() - began)}"
    print(text)
    if options.write:
        before, _, rest = options.write.read_text().partition(BEGIN)
        options.write.write_text(before + BEGIN + text + END + rest.partition(END)[2])
    return 0 if all(one.sound() for one in outcomes) else 1


def _tell(outcome: Outcome, seconds: float) -> None:
    print(f"{seconds:5.0f} s: {outcome.fault.name}: {outcome.times} times, {outcome.account}", file=sys.stderr)
    for line in outcome.wrong:
        print(f"  WRONG: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
