"""Whether two workers train as well as one at the same batch: `python docs/measure_workers.py FOLDER`. Prints Markdown.

Runs one configuration with three seeds by one worker and by two (DDP), from the same starting model, on digits at width
8, and compares accuracies on the 200 images of the test split, in points. What is done is kept.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from sweep.storage import Storage
from sweep.store import Store

SIZES = [
    *("--dataset", "digits", "--attacks", "linf,l2,blur", "--width", "8", "--train-size", "600"),
    *("--epochs", "3", "--batch-size", "64", "--attack-steps", "3", "--eval-steps", "5"),
    *("--set", "test_size=200", "--eval-size", "50", "--set", "pretraining.epochs=3"),
    *("--trials", "1", "--seeds", "0..2", "--test", "all", "--max-concurrent", "1"),
]


def sweep(folder: Path, workers: int) -> Store:
    store, kept = Store(Storage(str(folder)), f"workers-{workers}"), ["--storage", str(folder)]
    known = (folder / store.sweep_id / "sweep.json").exists()
    new = ["run", "sat", *SIZES, "--workers", str(workers), "--id", store.sweep_id]
    verb = ["resume", store.sweep_id] if known else new
    subprocess.run([sys.executable, "-m", "sweep", *verb, *kept], check=True, stdout=sys.stderr)
    return store


def accuracies(store: Store) -> dict[str, list[float]]:
    """Attack -> points, a seed each, in their order."""
    found: dict[str, dict[int, float]] = {}
    for row in store.results(["split", "method", "attack", "seed", "robust_accuracy"]).to_pylist():
        if row["split"] == "test" and row["method"] == "sat":
            found.setdefault(row["attack"], {})[row["seed"]] = 100 * row["robust_accuracy"]
    return {attack: [by_seed[seed] for seed in sorted(by_seed)] for attack, by_seed in found.items()}


def main() -> None:
    one, two = (accuracies(sweep(Path(sys.argv[1]), workers)) for workers in (1, 2))
    print("| attack | one worker | two workers | two less one, by seed |")
    print("|---|---|---|---|")
    for attack in one:
        shown = [f"{statistics.mean(x):.1f} +- {statistics.stdev(x):.1f}" for x in (one[attack], two[attack])]
        apart = ", ".join(f"{b - a:+.1f}" for a, b in zip(one[attack], two[attack], strict=True))
        print(f"| {attack} | {shown[0]} | {shown[1]} | {apart} |")


if __name__ == "__main__":
    main()
