"""The faults: what each does to a running sweep at a random moment. False where the sweep ended before it came."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from bout import DEADLINE_SECONDS, Bout, Shape, lead, values
from nodes import gone

Inject = Callable[[Bout], bool]
SHORT_TRIALS, GROUPS = Shape(), Shape(trials=2, epochs=10, workers=2)


@dataclass(frozen=True)
class Fault:
    """`times` in the long suite. `mounted`: needs a storage that is a file system of its own."""

    name: str
    inject: Inject
    times: int
    shape: Shape = SHORT_TRIALS
    mounted: bool = False


TUNE_ACTOR = "ray::ImplicitFunc"


def driver_killed(bout: Bout) -> bool:
    if not bout.moment():
        return False
    bout.process.kill()
    bout.resume()
    return True


def worker_killed(start: str) -> Inject:
    """Of a process of a trial, whose command line begins with `start`."""

    def inject(bout: Bout) -> bool:
        worker = _worker(bout, start)
        if worker is None:
            return False
        worker.kill()
        return True

    return inject


def _worker(bout: Bout, start: str) -> psutil.Process | None:
    """At a random moment, some process of a trial; None where the driver ended before."""
    found: list[psutil.Process] = []

    def there() -> bool:
        found[:] = bout.cluster.named(start)
        return bool(found)

    return bout.rng.choice(found) if bout.moment() and bout.until(there) else None


def node_killed(bout: Bout) -> bool:
    """Every process of a worker node at once; then a new node comes."""
    if not bout.moment():
        return False
    bout.cluster.replace(bout.rng.choice(bout.cluster.workers))
    return True


def raylet_killed(bout: Bout) -> bool:
    if not bout.moment():
        return False
    machine = bout.rng.choice(bout.cluster.workers)
    workers = machine.named("ray::")
    os.kill(machine.raylet, signal.SIGKILL)
    gone(workers)
    bout.cluster.replace(machine)
    return True


def node_preempted(bout: Bout) -> bool:
    """Notice is given (SIGTERM to the node, which drains it), a new node comes, the old one goes."""
    if not bout.moment():
        return False
    machine = bout.rng.choice(bout.cluster.workers)
    machine.process.terminate()
    machine.process.wait(DEADLINE_SECONDS)
    bout.cluster.replace(machine)
    return True


def gcs_killed(bout: Bout) -> bool:
    """The head's; without it the cluster ends, and the sweep is gone on with on another one."""
    if not bout.moment():
        return False
    bout.cluster.machines[0].gcs().kill()
    bout.process.wait(DEADLINE_SECONDS)
    bout.cluster.restart()
    bout.resume()
    return True


def storage_full(bout: Bout) -> bool:
    filler = bout.disk / "filler"
    return _trouble(bout, lambda: _fill(filler), filler.unlink)


def storage_read_only(bout: Bout) -> bool:
    return _trouble(bout, lambda: _remount(bout.disk, "ro"), lambda: _remount(bout.disk, "rw"))


def storage_away(bout: Bout) -> bool:
    """Every access to it is an error, as when a server of files does not answer: its link leads to itself."""
    return _trouble(bout, lambda: lead(bout.results, bout.results), lambda: lead(bout.results, bout.disk))


def _trouble(bout: Bout, begin: Callable[[], None], mend: Callable[[], None]) -> bool:
    if not bout.moment():
        return False
    begin()
    time.sleep(bout.rng.uniform(1, 4))
    mend()
    return True


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def _remount(root: Path, how: str) -> None:
    """Busy while a file is being written."""
    while subprocess.run(["mount", "-o", f"remount,{how}", str(root)], capture_output=True).returncode:
        time.sleep(0.01)


def checkpoint_broken(bout: Bout) -> bool:
    """The driver is killed, and of a run that it leaves the newest of two checkpoints is truncated, or has a byte
    changed, or loses its manifest. What goes on with it must say so."""

    def two_checkpoints() -> list[Path]:
        found: dict[Path, list[Path]] = {}
        for manifest in bout.root.glob("checkpoints/*/*/manifest.json"):
            found.setdefault(manifest.parents[1], []).append(manifest.parent)
        return [max(some, key=lambda path: int(path.name)) for some in found.values() if len(some) > 1]

    if not bout.moment() or not bout.until(lambda: bool(two_checkpoints())):
        return False
    trials = bout.cluster.named(TUNE_ACTOR)
    bout.process.kill()
    gone(trials)
    left = [newest for newest in two_checkpoints() if not (newest.parent / "outcome.json").exists()]
    if left:
        newest = bout.rng.choice(left)
        bout.rng.choice([_truncate, _change, _lose])(newest)
    bout.resume()
    if left:
        assert bout.until(lambda: bout.logged(newest.parent.name, "does not verify")), "nothing was said of it"
    return bool(left)


def _truncate(checkpoint: Path) -> None:
    weights = checkpoint / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def _change(checkpoint: Path) -> None:
    weights = checkpoint / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def _lose(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def memory_scarce(bout: Bout) -> bool:
    """For a while a worker may have hardly more memory than it has."""
    worker = _worker(bout, TUNE_ACTOR)
    if worker is None:
        return False
    with suppress(psutil.NoSuchProcess):  # it may die of it
        worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms + 2**20, psutil.RLIM_INFINITY))
        time.sleep(bout.rng.uniform(1, 4))
        worker.rlimit(psutil.RLIMIT_AS, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
    return True


def run_hangs(bout: Bout) -> bool:
    """A worker is killed, and what begins its run anew waits for ever for what a file says."""

    def begun() -> list[Path]:
        runs = {path.parents[1] for path in bout.root.glob("checkpoints/*/*/manifest.json")}
        return sorted(run for run in runs if not (run / "outcome.json").exists())

    if not bout.moment() or not bout.until(lambda: bool(begun())):
        return False
    run = bout.rng.choice(begun())
    fifo = run / "judged-at-once"
    os.mkfifo(fifo)
    for worker in bout.cluster.named(TUNE_ACTOR):
        worker.kill()
    bout.until(lambda: bout.logged(run.name, "no progress for") or (run / "outcome.json").exists())
    fifo.unlink()
    return bout.logged(run.name, "no progress for")


def second_driver(bout: Bout) -> bool:
    """Refused, with who holds the sweep."""
    if not bout.moment():
        return False
    code, said = bout.beside("resume", bout.sweep_id, "--address", bout.cluster.address)
    if bout.process.poll() is not None:
        return False
    assert (code, f"driven by process {bout.process.pid} on " in said) == (2, True), said
    return True


def second_sweep(bout: Bout) -> bool:
    """Another one on the same cluster, from now on."""
    if not bout.moment():
        return False
    arguments = bout.shape.arguments(bout.sweeps)
    code, said = bout.beside("run", *arguments, "--id", f"{bout.sweep_id}-other", "--address", bout.cluster.address)
    assert (code, len(values(bout.sweeps.store(f"{bout.sweep_id}-other")))) == (0, bout.shape.trials), said
    return True


def too_large(bout: Bout) -> bool:
    """A sweep whose trials want more CPUs than a node has, though not more than all have together."""
    if not bout.moment():
        return False
    arguments = [*bout.shape.arguments(bout.sweeps), "--cpus-per-worker", "2", "--id", f"{bout.sweep_id}-large"]
    code, said = bout.beside("run", *arguments, "--address", bout.cluster.address)
    assert (code, "expected a node with 2 CPUs" in said) == (2, True), said
    return True


FAULTS = (
    Fault("worker (Tune actor) killed", worker_killed(TUNE_ACTOR), 10),
    Fault("driver killed", driver_killed, 4),
    Fault("driver killed, a checkpoint broken", checkpoint_broken, 3),
    Fault("worker node killed", node_killed, 3),
    Fault("raylet killed", raylet_killed, 2),
    Fault("node pre-empted, with notice", node_preempted, 2),
    Fault("head's GCS killed, resumed on a new cluster", gcs_killed, 1),
    Fault("storage full for 1 to 4 s", storage_full, 5, mounted=True),
    Fault("storage read-only for 1 to 4 s", storage_read_only, 5, mounted=True),
    Fault("storage away for 1 to 4 s", storage_away, 5),
    Fault("memory of a worker scarce for 1 to 4 s", memory_scarce, 4),
    Fault("a run that hangs", run_hangs, 1),
    Fault("a second driver", second_driver, 2),
    Fault("a second sweep on the cluster", second_sweep, 1),
    Fault("a request that no node can meet", too_large, 1),
    Fault("Train worker of a group of 2 killed", worker_killed("ray::RayTrainWorker"), 2, GROUPS),
    Fault("Train controller of a group of 2 killed", worker_killed("ray::TrainController"), 1, GROUPS),
)
SHORT = ("worker (Tune actor) killed", "storage away", "driver killed, a checkpoint broken", "a second driver")
"""What CI does, each once in one sweep."""
