"""The comparison of docs/results.md: the ways to choose attacks, on real CIFAR-10 at a size for two cores. Prints
Markdown; what is done is kept, and the same command goes on.

    python docs/measure_methods.py FOLDER --data-root DATA        # about two hours on two cores

In FOLDER: the starting model, which docs/measure_attacks.py trains, and the storage of the sweep and of its evaluation
under the stronger lp attacks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SIZES = [
    *("--train-size", "3000", "--epochs", "4", "--batch-size", "32", "--lr", "0.05", "--attack-steps", "5"),
    *("--eval-size", "60", "--set", "test_size=300", "--eval-steps", "10"),
]
LP = """\
# APGD-CE, then APGD-T for 3 targets, 50 steps each
attacks:
"""
ROW = "  autoattack-custom-{norm}: {{num_targets: 3}}\n"
NORMS = ("linf", "l2", "l1")
METHODS = 8
COST = """
    select method, round(avg(forwards), 1) as forwards, round(avg(backwards), 1) as backwards,
        round(max(list_max(picks) / list_sum(picks)), 2) as "largest share of an attack"
    from (select trial, forwards, backwards, cast(json_extract(counts, '$.*') as double[]) as picks from epochs)
    join trials on trial = key where sweep_id = 'compare' group by method order by method
"""


def call(*command: str, told: bool = False) -> None:
    """Runs a Python program; what it prints goes to stdout only where it is `told`."""
    subprocess.run([sys.executable, *command], check=True, stdout=sys.stdout if told else sys.stderr)


def sweep(folder: Path, *arguments: str, told: bool = False) -> None:
    call("-m", "sweep", *arguments, "--storage", str(folder / "results"), told=told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-root", default="data")
    given = parser.parse_args()
    folder, data = given.folder, ["--data-root", given.data_root]
    folder.mkdir(parents=True, exist_ok=True)
    start, budgets = folder / "linf-8.safetensors", folder / "lp.yaml"
    if not start.exists():
        call(str(HERE / "measure_attacks.py"), "train", str(start), "--width", "8", "--train-size", "20000", *data)
    if (folder / "results" / "compare" / "sweep.json").exists():
        sweep(folder, "resume", "compare", *data)
    else:
        setting = ["--dataset", "cifar10", "--width", "8", "--init", str(start), *SIZES]
        sweep(folder, "run", "compare", "--id", "compare", *setting, *data)
    budgets.write_text(LP + "".join(ROW.format(norm=norm) for norm in NORMS))
    models = ["compare/pretrained", *(f"compare/{number}" for number in range(METHODS))]
    judges = ["--attacks", ",".join(f"autoattack-custom-{norm}" for norm in NORMS), "--budgets", str(budgets)]
    judges += ["--eval-steps", "50", "--n", "200", "--checked", "0"]
    sweep(folder, "evaluate", *models, *judges, "--id", "compare-lp", *data)
    for table in ("compare", "compare-lp"):
        sweep(folder, "table", table, "--format", "md", told=True)
    sweep(folder, "query", COST, "--format", "md", told=True)


if __name__ == "__main__":
    main()
