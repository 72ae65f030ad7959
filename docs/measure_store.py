"""What 1,000,000 result rows cost: `python docs/measure_store.py FOLDER`. Prints a Markdown table.

FOLDER gets a made-up sweep, the same at each call: 100 configurations with 5 seeds, judged after each of 90 epochs and,
once, on the test split, on 200 images under 21 attacks and clean, a file for each evaluation; and a compacted copy.
Each figure is of processes of their own, one after the other; seconds are those of the first call in its process,
imports left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sweep import schema
from sweep.storage import Storage
from sweep.store import Store

ID = "made"
CONFIGURATIONS, SEEDS, EPOCHS, IMAGES, CLASSES = 100, 5, 90, 200, 10
LP = ("linf", "l2", "l1")
LAST = f"where split = 'val' and epoch = {EPOCHS}"
SQL = {
    "mean by attack": f"select attack, avg(robust_accuracy) from results {LAST} group by 1",
    "best run": f"""select trial, avg(robust_accuracy) as a from results join trials on trial = key
        {LAST} and attack <> 'clean' and "param.sampler.w3" > 0.1 group by 1 order by 2 desc limit 5""",
    "all of a column": "select avg(robust_accuracy), max(seconds), count(*) from results",
    "exact union": f"""select trial, avg(bit_count(b)) from (select trial, bit_and(robust_bits::bit) as b from results
        {LAST} group by 1) group by 1""",
}


# the sweep


def make(folder: Path) -> None:
    """The sweep as the service writes it: a file for each evaluation, and for each run one of its epochs."""
    from sweep.layers import resolve
    from sweep.settings import nest

    store = Store(Storage(str(folder)), ID)
    resolved = resolve("cas", nest({"dataset": "digits", "trials": CONFIGURATIONS, "seeds": list(range(SEEDS))}))
    about = {"space": "cas", "method": "cas", "dataset": "digits", "fingerprint": "f", "seed": 0}
    store.create(about | {"trials": CONFIGURATIONS, "spec": resolved.model_dump(mode="json")})
    rng = np.random.default_rng(0)
    hard, labels = rng.random(IMAGES), rng.integers(CLASSES, size=IMAGES)
    for number in range(CONFIGURATIONS):
        params = {"sampler.w1": float(rng.uniform(2, 30)), "sampler.w3": float(rng.uniform(0, 2))}
        keys = [rng.bytes(8).hex() for _ in range(SEEDS)]
        runs = [{"key": key, "seed": seed, "replay": None} for seed, key in enumerate(keys)]
        store.write_plan(number, {"method": "cas", "params": params, "runs": runs})
        for seed, key in enumerate(keys):
            verdicts = results(rng, number, seed, key, hard, labels)
            for name, rows in evaluations(key, verdicts):
                put(store, "results", name, rows)
            put(store, "epochs", key, epochs(rng, number, key))
            row = {"number": number, "key": key, "state": "COMPLETE", "value": float(rng.random()), "seed": seed}
            store.commit_trial(row | {"method": "cas", "params": params, "replay": False})


def results(rng: Any, number: int, seed: int, key: str, hard: Any, labels: Any) -> pa.Table:
    """Each image has a difficulty, each attack a strength, and training helps."""
    from sweep import spaces

    attacks = ["clean", *spaces.default_attacks()]
    helped = np.linspace(0.2, 1.0, EPOCHS)[:, None] * np.linspace(0.9, 0.3, len(attacks))
    level = np.concatenate([helped, helped[-1:]])[..., None] + rng.normal(0, 0.1, (EPOCHS + 1, len(attacks), IMAGES))
    robust = (hard < level) & (hard < level[:, :1])
    predicted = np.where(robust, labels, (labels + 1 + rng.integers(CLASSES - 1, size=robust.shape)) % CLASSES)
    count, n = robust.sum(-1).ravel(), robust.shape[0] * robust.shape[1]
    each = {
        "epoch": np.repeat([*range(1, EPOCHS + 1), EPOCHS], len(attacks)),
        "split": np.repeat(["val"] * EPOCHS + ["test"], len(attacks)),
        "attack": attacks * (EPOCHS + 1),
        "family": ["clean", *("lp" if a in LP else "semantic" for a in attacks[1:])] * (EPOCHS + 1),
        "norm": [a if a in LP else None for a in attacks] * (EPOCHS + 1),
        "budget_id": [None, *["digits"] * (len(attacks) - 1)] * (EPOCHS + 1),
        "n_robust": count,
        "robust_accuracy": count / IMAGES,
        "mean_loss": rng.exponential(2.0, n),
        "seconds": rng.exponential(0.5, n),
        "robust_bits": [row.tobytes() for row in np.packbits(robust, -1).reshape(n, -1)],
        "predicted": [row.tobytes() for row in predicted.astype("<u2").reshape(n, -1)],
    }
    same = {"sweep_id": ID, "trial": key, "number": number, "method": "cas", "dataset": "digits", "seed": seed}
    same |= {"model": "preact-resnet-18-4", "init": "pretrain:linf", "weights": "live", "epsilon": 0.1, "num_steps": 10}
    same |= {"protocol": "quick", "n": IMAGES, "images": "8745dbb9eb06eb21", "attack_seed": seed, "conditional": False}
    full = each | {name: [value] * n for name, value in same.items()}
    columns = [pa.array(full.get(field.name, [None] * n), field.type) for field in schema.TABLES["results"]]
    return pa.table(columns, schema=schema.TABLES["results"])


def evaluations(key: str, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    size = len(rows) // (EPOCHS + 1)
    for epoch in range(EPOCHS):
        yield f"{key}-epoch-{epoch + 1}-val-live", rows.slice(epoch * size, size)
    yield f"{key}-test-live", rows.slice(EPOCHS * size)


def epochs(rng: Any, number: int, key: str) -> pa.Table:
    from sweep import spaces

    probabilities = dict.fromkeys(spaces.default_attacks(), 1 / 21)
    about = {"sweep_id": ID, "trial": key, "number": number, "phase": "main", "probabilities": probabilities}
    loss = {"train_loss": float(rng.random()), "train_accuracy": float(rng.random())}
    return schema.table("epochs", [about | loss | {"epoch": epoch + 1} for epoch in range(EPOCHS)])


def put(store: Store, table: str, name: str, rows: pa.Table) -> None:
    """As the store does it, without waiting for the disk."""
    path = Path(store.storage.uri, ID, "parquet", table, f"{name}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(schema.pack(rows, table))


# what is measured


def queried(name: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        from sweep.query import query

        return lambda: query(Storage(str(folder)), SQL[name])

    return run


def streamed(folder: Path) -> Any:
    from sweep import stream
    from sweep.query import ask

    def run() -> None:
        with ask(Storage(str(folder)), "select * from results") as answer, open(os.devnull, "w") as out:
            stream.show(answer, "csv", out)

    return run


def tabled(folder: Path) -> Any:
    from sweep import tables

    return lambda: tables.table(Store(Storage(str(folder)), ID))


def reported(folder: Path) -> Any:
    from sweep.cli import app

    arguments = ["report", ID, "--storage", str(folder), "--out", os.devnull]
    return lambda: app(arguments, standalone_mode=False)


def compacted(folder: Path, delete_after: float = 3600.0) -> Any:
    from sweep.compaction import compact

    return lambda: compact(Store(Storage(str(folder)), ID), delete_after)


def emptied(folder: Path) -> Any:
    return compacted(folder, 0.0)


TASKS: dict[str, Callable[[Path], Any]] = {f"query: {name}": queried(name) for name in SQL}
TASKS |= {"query: every row and column, as csv": streamed, "table": tabled, "report": reported}
COMPACT, DELETE = "compact", "compact, an hour later: deletes"
TASKS |= {COMPACT: compacted, DELETE: emptied}


def measure(task: str, folder: Path) -> None:
    """In a process of its own: seconds, those of its CPUs, and the most memory it has had, in MB, as JSON."""
    run = TASKS[task](folder)
    before, busy = time.perf_counter(), time.process_time()
    run()
    seconds = [time.perf_counter() - before, time.process_time() - busy]
    print("\n" + json.dumps([*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000]))


def measured(task: str, folder: Path, times: int) -> list[list[float]]:
    command = [sys.executable, __file__, str(folder), "--task", task]
    said = [subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout for _ in range(times)]
    return [json.loads(text.splitlines()[-1]) for text in said]


def whole_process(folder: Path, times: int) -> list[list[float]]:
    """Of `python -m sweep query`."""
    command = [sys.executable, "-m", "sweep", "query", SQL["mean by attack"], "--storage", str(folder)]
    found = []
    for _ in range(times):
        before, busy = time.perf_counter(), children()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append([time.perf_counter() - before, children() - busy])
    return found


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shown(what: str, layout: str, found: list[list[float]]) -> None:
    cells = [f"{statistics.median(one):.3g} ({min(one):.3g} to {max(one):.3g})" for one in zip(*found, strict=True)]
    print(f"| {what} | {layout} | {len(found)} | {' | '.join([*cells, '-'][:3])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("-n", type=int, default=5)
    parser.add_argument("--slow", type=int, default=1, help="how often what takes a minute or more is measured")
    parser.add_argument("--task", choices=TASKS)
    given = parser.parse_args()
    if given.task:
        return measure(given.task, given.folder)
    small, large = given.folder / "small", given.folder / "compacted"
    if not small.exists():
        make(small)
    print(
        "| what | files | n | seconds, median (min to max) | of CPU | most memory, MB |\n|---|---|---:|---:|---:|---:|"
    )
    shown("query: mean by attack", "small", measured("query: mean by attack", small, given.slow))
    for task in (COMPACT, DELETE):
        found = []
        for _ in range(given.slow):
            if task == COMPACT:
                shutil.rmtree(large, ignore_errors=True)
                shutil.copytree(small, large, copy_function=os.link)
            found += measured(task, large, 1)
        shown(task, "small", found)
    for task in TASKS:
        if task not in (COMPACT, DELETE) and (task != "report" or find_spec("sweep.report")):
            slow = task in ("table", "report") or "csv" in task
            shown(task, "compacted", measured(task, large, given.slow if slow else given.n))
    return shown("`python -m sweep query`, the process", "compacted", whole_process(large, given.n))


if __name__ == "__main__":
    main()
