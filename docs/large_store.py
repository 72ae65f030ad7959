"""A store as large as a large sweep leaves it, of random verdicts: for measuring what reads it.

    python docs/large_store.py STORAGE       # writes the sweep `large`, 990,000 rows of results in ten files
    python docs/large_store.py STORAGE table # measures the table of it
"""

from __future__ import annotations

import io
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attacks import catalogue
from sweep import schema, spaces, tables
from sweep.storage import Storage
from sweep.store import COMPLETE, Store

DATASET, PER_FILE = "cifar10", 10


def large(
    storage: Storage, configurations: int = 100, seeds: int = 5, epochs: int = 90, images: int = 200, seed: int = 0
) -> Store:
    """The sweep `large`: every run judged after each epoch under clean and the papers' 21 attacks on `test`, ten
    configurations to a file. Later epochs are a little more robust, as are later configurations."""
    store, rng = Store(storage, "large"), np.random.default_rng(seed)
    about = {"space": "cas", "method": "cas", "dataset": DATASET, "fingerprint": "f", "trials": configurations}
    store.create(about | {"created": "2026-11-30T00:00:00+00:00", "seed": 0, "spec": {}})
    families = {row["name"]: row["family"] for row in catalogue.describe(DATASET)}
    named = {"clean": "clean", **{name: families[name] for name in spaces.default_attacks()}}
    for start in range(0, configurations, PER_FILE):
        numbers = range(start, min(start + PER_FILE, configurations))
        parts = [_results(n, n / configurations, named, seeds, epochs, images, rng) for n in numbers]
        _put(store, "results", f"part-{start:05d}", pa.concat_tables(parts))
    runs = [(number, k) for number in range(configurations) for k in range(seeds)]
    rows = [
        {"sweep_id": "large", "number": number, "key": _key(number, k), "seed": k, "method": "cas", "replay": False}
        | {"state": COMPLETE, "value": 0.4, "params": {"optimizer.lr": 0.001 * number}}
        for number, k in runs
    ]
    _put(store, "trials", "all", schema.table("trials", rows))
    return store


def _results(
    number: int, quality: float, named: dict[str, str], seeds: int, epochs: int, images: int, rng: np.random.Generator
) -> pa.Table:
    shape = (seeds, epochs, len(named))
    trend = 0.2 * quality + 0.1 * np.arange(epochs)[None, :, None] / epochs
    chance = np.linspace(0.7, 0.1, len(named)) + trend  # (1, epochs, attacks)
    robust = (rng.random((*shape, images), np.float32) < chance[..., None]).reshape(-1, images)
    k, epoch, attack = (index.ravel() for index in np.indices(shape))
    names = list(named)
    lp = [name if named[name] == "lp" else None for name in names]
    columns: dict[str, Any] = {
        "trial": np.array([_key(number, s) for s in range(seeds)])[k],
        "seed": k,
        "epoch": epoch + 1,
        "attack": np.array(names)[attack],
        "family": np.array(list(named.values()))[attack],
        "norm": pa.array(lp).take(pa.array(attack)),
        "budget_id": pa.array([None, *[DATASET] * (len(names) - 1)]).take(pa.array(attack)),
        "n_robust": robust.sum(1),
        "robust_accuracy": robust.mean(1),
        "robust_bits": pa.array([row.tobytes() for row in np.packbits(robust, axis=1)], pa.binary()),
    }
    same = {"sweep_id": "large", "number": number, "method": "cas", "dataset": DATASET, "model": "preact-resnet-18-64"}
    same |= {"weights": "live", "split": "test", "epsilon": 0.03, "num_steps": 10, "protocol": "quick", "n": images}
    same |= {"images": "i", "conditional": False, "init": "pretrain:linf", "attack_seed": 0, "seconds": 1.0}
    table, rows = schema.TABLES["results"], len(robust)

    def column(field: pa.Field) -> pa.Array:
        if field.name in columns:
            return pa.array(columns[field.name]).cast(field.type)
        if field.name in same:
            return pa.repeat(pa.scalar(same[field.name], field.type), rows)
        return pa.nulls(rows, field.type)

    return pa.table([column(field) for field in table], schema=table)


def _key(number: int, seed: int) -> str:
    return f"{number:08x}{seed:08x}"


def _put(store: Store, name: str, file: str, table: pa.Table) -> None:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    store.folder.write(f"parquet/{name}/{file}.parquet", out.getvalue())


def main() -> None:
    where, *what = sys.argv[1:]
    storage = Storage(where)
    if not what:
        Path(where).mkdir(parents=True, exist_ok=True)
        print(large(storage).results(["trial"]).num_rows, "rows")
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for about, make in {
        "table": lambda: tables.table(Store(storage, "large")),
        "compare (marks)": lambda: tables.compare([Store(storage, "large")]),
    }.items():
        took = []
        for _ in range(5):
            start = time.perf_counter()
            make()
            took.append(time.perf_counter() - start)
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"{about}: median {np.median(took):.2f} s, {min(took):.2f} to {max(took):.2f}, +{peak:.0f} MiB")


if __name__ == "__main__":
    main()
