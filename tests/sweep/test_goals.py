"""What a search is for: constraints as text, which configurations are the best, and the metrics of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judgements import sweep_of

from attacks.errors import InputError
from sweep import status
from sweep.goals import Constraint, Goal
from sweep.layers import resolve
from sweep.metrics import metrics, value
from sweep.settings import nest
from sweep.store import Store
from trainers.evaluate import Verdict

SPACE = "method: sat\ndataset: digits\nattacks: [linf, l1, fog]\nsearch: {optimizer.lr: {low: 0.01, high: 1}}\n"


# constraints and goals


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("clean >= 0.8", Constraint("clean", ">=", 0.8)),
        (" autoattack-linf<=.25 ", Constraint("autoattack-linf", "<=", 0.25)),
        ("worst >= 1e-1", Constraint("worst", ">=", 0.1)),
    ],
)
def test_a_constraint_is_read_and_written(text: str, made: Constraint) -> None:
    assert Constraint.of(text) == made
    assert Constraint.of(str(made)) == made


@pytest.mark.parametrize(
    "text", ["", "clean", "clean > 0.8", "clean >= 80", "clean >= nan", "clean >= x", "0.8 <= clean"]
)
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected METRIC >= NUMBER or <=, from 0 to 1, such as clean >= 0\.8, got '"):
        Constraint.of(text)


def test_a_constraint_is_violated_by_what_lacks() -> None:
    assert Constraint.of("clean >= 0.8").violation({"clean": 0.5}) == pytest.approx(0.3)
    assert Constraint.of("clean <= 0.8").violation({"clean": 0.5}) == pytest.approx(-0.3)
    assert Constraint.of("clean >= 0.5").violation({"clean": 0.5}) == 0


def found(*reached: tuple[float, float]) -> list[dict[str, Any]]:
    pairs = [dict(zip(("clean", "value"), each, strict=True)) for each in reached]
    return [{"number": number, "metrics": each} for number, each in enumerate(pairs)]


def order(goal: Goal, *reached: tuple[float, float]) -> list[tuple[int, bool]]:
    return [(one["number"], one["front"]) for one in goal.ranked(found(*reached))]


def test_one_objective_has_one_first() -> None:
    assert order(Goal(), (0.9, 0.3), (0.1, 0.5), (0.2, 0.5)) == [(1, True), (2, False), (0, False)]
    assert order(Goal(["clean"]), (0.9, 0.3), (0.1, 0.5)) == [(0, True), (1, False)]


def test_the_front_goes_first_in_the_order_of_the_first_objective() -> None:
    """2 is dominated by 1, in value alone; 4 equals 0; 3 is the other end."""
    points = ((0.9, 0.3), (0.5, 0.5), (0.5, 0.4), (0.2, 0.8), (0.9, 0.3))
    told = order(Goal(["clean", "value"]), *points)
    assert told == [(0, True), (4, True), (1, True), (3, True), (2, False)]


def test_the_front_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(0, 8, (60, 3)) / 8
    names = ["clean", "lp", "worst"]
    rows = [
        {"number": k, "metrics": dict(zip(names, map(float, point), strict=True))} for k, point in enumerate(points)
    ]
    front = {one["number"] for one in Goal(names).ranked(rows) if one["front"]}
    beaten = [((points >= p).all(axis=1) & (points > p).any(axis=1)).any() for p in points]
    assert front == {k for k, lost in enumerate(beaten) if not lost}


def test_feasible_ones_go_first_and_then_what_violates_least() -> None:
    points = ((0.9, 0.3), (0.7, 0.9), (0.6, 0.9), (0.85, 0.4))
    assert order(Goal(constraints=["clean >= 0.8"]), *points) == [(3, True), (0, False), (1, False), (2, False)]
    several = Goal(["clean", "value"], ["clean >= 0.8"])
    assert order(several, *points) == [(0, True), (3, True), (1, False), (2, False)]
    assert order(Goal(constraints=["clean >= 0.95"]), *points)[0] == (0, True)


def test_what_lacks_a_metric_is_left_out() -> None:
    assert Goal(["worst"]).ranked(found((0.9, 0.3))) == []
    assert Goal(constraints=["linf >= 0.1"]).values({"value": 0.5}) is None


# what a sweep may ask for


def asked(folder: Path, **more: Any) -> Any:
    path = folder / "space.yaml"
    path.write_text(SPACE)
    return resolve(str(path), nest(more))


def test_a_goal_is_part_of_a_sweep(tmp_path: Path) -> None:
    sweep = asked(tmp_path, objectives=["clean", "worst"], constraints=["lp>=0.1", "fog <= 0.5"])
    assert sweep.goal == Goal(("clean", "worst"), ("lp >= 0.1", "fog <= 0.5"))
    assert asked(tmp_path).goal == Goal(("value",), ())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"objectives": ["clan"]}, "objectives: unknown metric 'clan': did you mean 'clean'?"),
        (
            {"objectives": ["l2"]},
            "objectives: unknown metric 'l2': known: clean, fog, l1, linf, lp, semantic, value, worst",
        ),
        ({"objectives": []}, "objectives: expected at least one, got none"),
        ({"objectives": ["lp", "lp"]}, "objectives: expected each once, got lp twice"),
        ({"constraints": ["jpeg >= 0.1"]}, "constraints: unknown metric 'jpeg'"),
        ({"constraints": ["clean > 0.1"]}, "constraints: expected METRIC >= NUMBER"),
        ({"attacks": ["linf"], "objectives": ["semantic"]}, "objectives: unknown metric 'semantic'"),
    ],
)
def test_a_goal_that_no_trial_reaches_is_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        asked(tmp_path, **more)
    assert said in str(raised.value)


@pytest.mark.parametrize("searcher", ["gp", "nsga2"])
def test_searchers_of_one_method_say_why(tmp_path: Path, searcher: str) -> None:
    path = tmp_path / "joint.yaml"
    path.write_text(f"searcher: {searcher}\ntrials: 3\nmethods: [sat, cas]\n")
    with pytest.raises(InputError, match=rf"searcher: {searcher} takes one method, got 2: a .* in .*; use tpe"):
        resolve(str(path), nest({"search.optimizer.lr": {"low": 0.01, "high": 0.1}}))


# the metrics of a trial


def verdict(attack: str, family: str, robust: list[int], norm: str | None = None, conditional: bool = False) -> Verdict:
    bits = torch.tensor(robust) > 0
    return Verdict(attack, family, 0.1, 10, bits, 1.0, 1.0, norm=norm, conditional=conditional)


def test_metrics_worked_by_hand() -> None:
    """Two attacks of one norm count once, by their union; a stage counts for nothing."""
    verdicts = [
        verdict("clean", "clean", [1, 1, 1, 0]),
        verdict("linf", "lp", [1, 1, 0, 0], "linf"),
        verdict("pgd-linf", "lp", [1, 0, 1, 0], "linf"),
        verdict("l1", "lp", [1, 1, 1, 0], "l1"),
        verdict("fog", "semantic", [0, 1, 1, 0]),
        verdict("linf/stage", "lp", [0, 0, 0, 0], "linf", conditional=True),
    ]
    reached = metrics(verdicts)
    each = {"clean": 0.75, "linf": 0.5, "pgd-linf": 0.5, "l1": 0.75, "fog": 0.5}
    assert reached == each | {"lp": 0.5, "semantic": 0.5, "worst": 0.0}
    assert value(verdicts) == 0.5


def test_a_family_that_was_not_attacked_has_no_metric() -> None:
    reached = metrics([verdict("clean", "clean", [1, 1]), verdict("fog", "semantic", [0, 1])])
    assert reached == {"clean": 1.0, "fog": 0.5, "worst": 0.5, "semantic": 0.5}


# `best`


def ended(store: Store, number: int, seed: int, **reached: float) -> None:
    row = {"number": number, "key": f"k{number}{seed}", "seed": seed, "method": "sat", "state": "COMPLETE"}
    row |= {"params": {"optimizer.lr": number / 10}, "value": reached.pop("value"), "metrics": reached}
    store.commit_trial(row | {"replay": False})


def test_best_shows_the_front_of_means_over_seeds(tmp_path: Path) -> None:
    store = sweep_of(tmp_path, SPACE + "objectives: [clean, value]\nconstraints: [worst >= 0.2]\nseeds: [0, 1]\n")
    for number, (clean, robust, worst) in enumerate(
        [(0.9, 0.3, 0.3), (0.5, 0.6, 0.2), (0.4, 0.5, 0.2), (0.95, 0.9, 0.1)]
    ):
        for seed in (0, 1):
            ended(store, number, seed, clean=clean + seed / 100, value=robust, worst=worst)
    rows = status.best(store)
    assert [row["number"] for row in rows] == [0, 1]
    assert rows[0] == {"number": 0, "method": "sat", "key": "k00, k01", "clean": pytest.approx(0.905)} | {
        "value": 0.3, "worst": 0.3, "feasible": True, "optimizer.lr": 0.0
    }  # fmt: skip
    assert (
        status.verdict(store)
        == "3 of 4 configurations keep worst >= 0.2; 2 of 4 are on the Pareto front of clean, value"
    )
    assert status.sweeps(store.storage)[0]["best"] == pytest.approx(0.905)


def test_best_says_where_nothing_is_feasible(tmp_path: Path) -> None:
    store = sweep_of(tmp_path, SPACE + "constraints: [clean >= 0.8]\n")
    ended(store, 0, 0, clean=0.5, value=0.9)
    ended(store, 1, 0, clean=0.7, value=0.1)
    assert [(row["number"], row["feasible"]) for row in status.best(store)] == [(1, False)]
    assert status.verdict(store) == "0 of 2 configurations keep clean >= 0.8; what violates least goes first"
