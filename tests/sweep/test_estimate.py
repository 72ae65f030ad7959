"""What a sweep would take: by hand, and told by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from shells import Shell
from sweeps import Sweeps

from sweep import estimate
from sweep.engine import Resources
from sweep.estimate import Cost
from sweep.layers import resolve
from sweep.settings import nest
from trainers import data

SPACE = """\
dataset: digits
attacks: [linf, l1, fog, jpeg]
train_size: 100
eval_size: 20
test_size: 50
optimizer.epochs: 3
searcher: grid
seeds: [0, 1]
test: all
methods:
  sat: {search: {optimizer.lr: {values: [0.1, 0.2]}}}
  avg: {}
  max+ab-l2: {train_attacks: [linf, l1]}
  trades: {train_attacks: [linf]}
"""
COST = Cost(step=1.0, trained={"linf": 2.0, "l1": 4.0, "fog": 6.0, "jpeg": 8.0}, judged={"linf": 3.0, "l1": 7.0})


def test_by_hand(sweep: Shell) -> None:
    """Under balanced weights both norms and both semantic attacks count alike for SAT: (2 + 4 + 6 + 8) / 4 = 5 seconds
    an image, and 1 of the step. AVG meets all, 20, and takes four steps; MAX under AdaptiveBudget its two twice, 12;
    TRADES one, 2, with a second forward and backward."""
    made = resolve(sweep.write(SPACE), nest({}))
    images = data.load("digits", train_size=100, eval_size=20, test_size=50)
    rows = estimate.costs(made, images, COST, Resources(cpus=1, gpus=0.5, max_concurrent=4), price=2.0)
    training = {"sat": 6.0, "avg": 24.0, "max+ab-l2": 13.0, "trades": 4.0}
    assert [(row["method"], row["training"]) for row in rows[:-1]] == [(n, 300 * s) for n, s in training.items()]
    assert [row["runs"] for row in rows] == [4, 2, 2, 2, 10]
    assert {row["judging"] for row in rows[:-1]} == {200.0}
    seconds = 300 * (4 * 6 + 2 * 24 + 2 * 13 + 2 * 4) + 10 * 200 + 11 * 500
    assert rows[-1]["hours"] == pytest.approx(seconds / 3600 / 4)
    assert rows[-1]["GPU-hours"] == pytest.approx(seconds / 3600 / 2)
    assert rows[-1]["money"] == pytest.approx(seconds / 3600)


def test_the_confirmation_of_the_best_counts(sweep: Shell) -> None:
    """Two of five configurations run with two seeds more, and meet the test split with all four, as the start does."""
    images = data.load("digits", train_size=100, eval_size=20, test_size=50)
    settings = {"test": "best", "confirm": 2, "confirm_seeds": [0, 1, 2, 3]}
    made = resolve(sweep.write(SPACE), nest(settings))
    rows = estimate.costs(made, images, COST, Resources(cpus=1, gpus=0, max_concurrent=1))
    assert [row["runs"] for row in rows] == pytest.approx([5.6, 2.8, 2.8, 2.8, 14])
    seconds = 300 * (5.6 * 6 + 2.8 * (24 + 13 + 4)) + 14 * 200 + (1 + 2 * 4) * 500
    assert rows[-1]["hours"] == pytest.approx(seconds / 3600)


def test_the_trials_that_are_certain(sweep: Shell) -> None:
    cells = estimate.trials(resolve(sweep.write(SPACE), nest({})))
    assert [row["method"] for row in cells] == ["sat", "sat", "avg", "max+ab-l2", "trades"]
    assert [row.get("optimizer.lr") for row in cells[:3]] == [0.1, 0.2, None]
    first = estimate.trials(resolve("cas", nest({"trials": 4})))
    assert len(first) == 1, "TPE proposes the others"
    assert first[0]["sampler.w1"] == 10


@pytest.mark.ray
def test_a_dry_run_times_and_writes_nothing(tmp_path: Path) -> None:
    smoke = ["--profile", "smoke", "--dataset", "digits", "--attacks", "linf,fog"]
    price = ["--dry-run", "--price-per-gpu-hour", "1.5"]
    code, out, err = Sweeps(tmp_path).run("run", "sat", "--trials", "3", *smoke, *price)
    assert code == 0, err
    assert "and 2 more, which tpe will propose" in out
    head, *rows = [line.split() for line in out.splitlines()[-3:]]
    assert head == ["method", "runs", "training", "judging", "hours", "CPU-hours", "money"]
    assert rows[0][:2] == ["sat", "3"]
    assert float(rows[0][2]) > 0
    assert float(rows[1][-1]) == pytest.approx(1.5 * float(rows[1][-2]), rel=0.01)
    assert not (tmp_path / "results").exists()
