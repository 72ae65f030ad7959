"""Importance of hyper-parameters, by hand and as Optuna has it of a study made here."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
from judgements import end, judge, sweep_of

from attacks.errors import InputError
from sweep.analysis.importance import FEWEST, importance
from sweep.store import Store

ONE = """\
method: sat
dataset: digits
attacks: [linf, blur]
search:
  optimizer.lr: {low: 0.1, high: 0.2, step: 0.1}
  optimizer.momentum: {low: 0.5, high: 0.9, step: 0.4}
"""
JOINT = """\
dataset: digits
attacks: [linf, blur]
methods:
  sat: {search: {optimizer.lr: {low: 0.01, high: 0.3}}}
  alpha: {method: cas-bandit, search: {sampler.alpha: {low: 1, high: 9}, optimizer.lr: {low: 0.1, high: 0.5}}}
  plain: {method: e-at-all}
"""
EVALUATORS = ("fanova", "ped-anova")


def shares(rows: list[dict[str, Any]], method: str = "") -> dict[str, float | None]:
    return {row["parameter"]: row["importance"] for row in rows if row["method"] == method}


def grid(store: Store, repeats: int = 5) -> None:
    """value = 3 a + b over both halves of both parameters, `repeats` times."""
    for number, (_, a, b) in enumerate(itertools.product(range(repeats), (0, 1), (0, 1))):
        params = {"optimizer.lr": (0.1, 0.2)[a], "optimizer.momentum": (0.5, 0.9)[b]}
        end(store, number, params, [(3 * a + b) / 10])


def test_fanova_of_an_additive_function(tmp_path: Path) -> None:
    """Var(3a) : Var(b) = 9 : 1, for a and b of two equally likely values. A tree that has drawn all four cells has it
    exactly, and few have not."""
    store = sweep_of(tmp_path, ONE)
    grid(store)
    rows = importance(store, "fanova")
    assert shares(rows) == pytest.approx({"optimizer.lr": 0.9, "optimizer.momentum": 0.1}, abs=0.01)
    assert [(row["parameter"], row["method"], row["trials"]) for row in rows] == [
        ("optimizer.lr", "", 20),
        ("optimizer.momentum", "", 20),
    ]


def test_a_target_of_the_table(tmp_path: Path) -> None:
    """The value depends on lr alone, the accuracies on the momentum alone, 9 in 10 and 1 in 10 of the images."""
    store = sweep_of(tmp_path, ONE)
    for number, (_, a, b) in enumerate(itertools.product(range(3), (0, 1), (0, 1))):
        end(store, number, {"optimizer.lr": (0.1, 0.2)[a], "optimizer.momentum": (0.5, 0.9)[b]}, [a / 2])
        robust = [1] * (9 if b else 1) + [0] * (1 if b else 9)
        judge(store, f"{number}-0", dict.fromkeys(("clean", "linf", "blur"), robust))
    assert shares(importance(store)) == pytest.approx({"optimizer.lr": 1.0, "optimizer.momentum": 0.0})
    for target in ("clean", "union(linf,blur)", "worst attack"):
        found = shares(importance(store, target=target))
        assert found == pytest.approx({"optimizer.momentum": 1.0, "optimizer.lr": 0.0})


def joint(store: Store) -> list[tuple[str, dict[str, Any], float]]:
    """sat's lr and alpha's alpha decide; sat is the better one by far; alpha's lr is nothing."""
    trials: list[tuple[str, dict[str, Any], float]] = []
    for k in range(10):
        lr, alpha, other = 0.01 + 0.29 * k / 9, 1.0 + 8.0 * (k * 7 % 10) / 9, 0.1 + 0.4 * (k * 3 % 10) / 9
        trials.append(("sat", {"optimizer.lr": lr}, 0.6 + lr))
        trials.append(("alpha", {"sampler.alpha": alpha, "optimizer.lr": other}, 0.2 + alpha / 90))
    trials.append(("plain", {}, 0.3))
    for number, (name, params, value) in enumerate(trials):
        end(store, number, {"method": name} | params, [value])
    return trials


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_joint_space(tmp_path: Path, evaluator: str) -> None:
    store = sweep_of(tmp_path, JOINT)
    joint(store)
    rows = importance(store, evaluator)
    assert [(row["method"], row["trials"]) for row in rows] == [("", 21), ("sat", 10), ("alpha", 10), ("alpha", 10)]
    assert list(shares(rows)) == ["method"]
    assert shares(rows, "sat") == {"optimizer.lr": pytest.approx(1.0)}
    found = shares(rows, "alpha")
    assert (found["sampler.alpha"] or 0.0) > (found["optimizer.lr"] or 1.0)
    assert sum(share or 0.0 for share in found.values()) == pytest.approx(1.0)
    choice = shares(rows)["method"]
    assert choice is not None
    assert choice > 0.5 or evaluator == "ped-anova"  # which asks only what brings a trial into the top tenth


def test_ped_anova_is_optuna_s(tmp_path: Path) -> None:
    """Over a study made here, in which a method's parameters are there in its own trials only."""
    store = sweep_of(tmp_path, JOINT)
    float_ = optuna.distributions.FloatDistribution
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "method": optuna.distributions.CategoricalDistribution(["sat", "alpha", "plain"]),
        "sat: optimizer.lr": float_(0.01, 0.3),
        "alpha: sampler.alpha": float_(1, 9),
        "alpha: optimizer.lr": float_(0.1, 0.5),
    }
    study = optuna.create_study(direction="maximize")
    for name, params, value in joint(store):
        own = {"method": name} | {f"{name}: {address}": v for address, v in params.items()}
        made = optuna.create_trial(params=own, distributions={key: space[key] for key in own}, value=value)
        study.add_trial(made)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert shares(importance(store, "ped-anova"))["method"] == pytest.approx(expected["method"])


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_method_of_few_trials_has_no_importances(tmp_path: Path, evaluator: str) -> None:
    store = sweep_of(tmp_path, JOINT)
    for number in range(5):
        end(store, number, {"method": "sat", "optimizer.lr": 0.02 + number / 20}, [0.5 + number / 20])
    end(store, 5, {"method": "alpha", "sampler.alpha": 2.0, "optimizer.lr": 0.2}, [0.1])
    found = shares(importance(store, evaluator), "alpha")
    assert found == {"optimizer.lr": None, "sampler.alpha": None}


def test_only_finished_trials_count(tmp_path: Path) -> None:
    store = sweep_of(tmp_path, ONE)
    grid(store)
    before = importance(store)
    end(store, 20, {"optimizer.lr": 0.1, "optimizer.momentum": 0.9}, [9.0], state="FAILED")
    end(store, 21, {"optimizer.lr": 0.1, "optimizer.momentum": 0.9}, [9.0], state="PRUNED")
    assert importance(store) == before


def told(store: Store, **arguments: str) -> str:
    with pytest.raises(InputError) as found:
        importance(store, **arguments)
    return str(found.value)


def test_faults(tmp_path: Path) -> None:
    store = sweep_of(tmp_path, ONE)
    end(store, 0, {"optimizer.lr": 0.1, "optimizer.momentum": 0.5}, [0.5])
    assert told(store) == f"expected at least {FEWEST} finished trials to say what is important, got 1"
    for number in range(1, 5):
        end(store, number, {"optimizer.lr": 0.1, "optimizer.momentum": 0.5}, [0.5])
    assert told(store) == "all 5 finished trials of s reached the same value"
    assert told(store, evaluator="fnova") == "unknown evaluator 'fnova': did you mean 'fanova'?"
    for number in range(5):
        judge(store, f"{number}-0", {"clean": [1, 0]})
    assert told(store, target="claen") == "unknown column 'claen': did you mean 'clean'?"
    end(store, 5, {"optimizer.lr": 0.1, "attack_steps": 5}, [0.5])
    assert told(store) == "expected trials of what s searches, got one with attack_steps"
    nothing = sweep_of(tmp_path, "method: sat\ndataset: digits\nattacks: [linf]\n", "t")
    assert told(nothing) == "t searches nothing: no parameter to be important"


def test_the_service_s_own_sweep(swept: Store) -> None:
    """Of five configurations: the choice of the method, and no word on a parameter of two trials."""
    for evaluator in EVALUATORS:
        choice, alpha = importance(swept, evaluator)
        assert (choice["parameter"], choice["trials"]) == ("method", 5)
        assert 0.0 <= choice["importance"] <= 1.0
        assert alpha == {"method": "alpha", "parameter": "sampler.alpha", "importance": None, "trials": 2}
