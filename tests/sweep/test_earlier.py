"""A warm start: which configurations of earlier sweeps a new one takes, as what, and which sweeps it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from judgements import end, sweep_of

from attacks.errors import InputError
from sweep import alternatives
from sweep.alternatives import Sweep
from sweep.earlier import recalled
from sweep.search import searcher
from sweep.store import Store

ONE = "method: cas\ndataset: digits\nattacks: [linf, l1, fog]\nsearch: {sampler.w1: {low: 2, high: 30, log: true}}\n"
JOINT = """\
dataset: digits
attacks: [linf, l1, fog]
methods:
  sat: {search: {optimizer.lr: {values: [0.1, 0.2]}}}
  wide: {method: cas, search: {sampler.w1: {low: 1, high: 20}, optimizer.epochs: {low: 1, high: 30}}}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two seeds each: 0 and 1 ended well, 2 FAILED, 3 has not ended, 4 was PRUNED."""
    made = sweep_of(tmp_path, ONE, "earlier", seeds=[0, 1], trials=5)
    end(made, 0, {"sampler.w1": 5.0}, [0.25, 0.5], metrics={"clean": 0.75})
    end(made, 1, {"sampler.w1": 25.0}, [0.5, 0.5], metrics={"clean": 0.5})
    end(made, 2, {"sampler.w1": 7.0}, [0.0, 0.0], "FAILED")
    runs = [{"key": f"3-{seed}", "seed": seed, "replay": None} for seed in (0, 1)]
    made.write_plan(3, {"method": "cas", "params": {"sampler.w1": 8.0}, "runs": runs})
    end(made, 4, {"sampler.w1": 9.0}, [0.0, 0.0], "PRUNED")
    return made


def sweep(folder: Path, space: str, **overrides: Any) -> Sweep:
    return alternatives.reload(sweep_of(folder, space, "new", **overrides).document()["spec"])


def test_configurations_come_with_their_means_in_this_sweeps_terms(tmp_path: Path, store: Store) -> None:
    found, told = recalled(sweep(tmp_path, ONE), "f", [store])
    assert [(one["number"], one["params"]["sampler.w1"], one["state"], one["metrics"]) for one in found] == [
        (0, 5.0, "COMPLETE", {"value": 0.375, "clean": 0.75}),
        (1, 25.0, "COMPLETE", {"value": 0.5, "clean": 0.5}),
        (2, 7.0, "FAILED", {}),
        (4, 9.0, "PRUNED", {}),
    ]
    assert told == ["begins with 4 of 4 ended configurations of earlier"]


def test_another_space_takes_those_that_it_could_have_drawn(tmp_path: Path, store: Store) -> None:
    """As the alternative that makes the same trial, with the values of what it searches besides."""
    found, told = recalled(sweep(tmp_path, JOINT), "f", [store])
    epochs = alternatives.reload(store.document()["spec"]).trial.recipe().epochs
    assert found[0]["params"] == {"method": "wide", "optimizer.epochs": epochs, "sampler.w1": 5.0}
    assert [one["number"] for one in found] == [0, 2, 4]
    assert told == [
        "begins with 3 of 4 ended configurations of earlier; the others do not fit, the first: sampler.w1 = 25.0, "
        "which is not searched"
    ]


def test_the_search_begins_with_them(tmp_path: Path, store: Store) -> None:
    """Before trial 0, which is the default as ever; what sweep.json keeps of them gives the same search."""
    new = sweep(tmp_path, ONE, objectives=["clean", "value"], constraints=["clean >= 0.6"])
    found, _ = recalled(new, "f", [store])
    study, again = searcher(new, found)._study, searcher(new, json.loads(json.dumps(found)))  # type: ignore[attr-defined]
    states = [(trial.state.name, trial.values, trial.constraints) for trial in study.trials]
    assert states == [
        ("COMPLETE", [0.75, 0.375], {"clean >= 0.6": pytest.approx(-0.15)}),
        ("COMPLETE", [0.5, 0.5], {"clean >= 0.6": pytest.approx(0.1)}),
        ("FAIL", None, {}),
        ("PRUNED", None, {}),
    ]
    assert again.ask(0) == new.alternatives["cas"].defaults()


@pytest.mark.parametrize(
    ("space", "more", "fingerprint", "said"),
    [
        (ONE, {}, "other", "another data set"),
        (ONE, {"attacks": ["linf", "fog"]}, "f", "another attacks"),
        (ONE, {"evaluation.num_steps": 3}, "f", "another evaluation"),
        (ONE, {"evaluation.protocol": "train"}, "f", "another evaluation"),
        (ONE, {"epsilons": {"fog": 0.5}}, "f", "another epsilons"),
        (ONE, {"init": "pretrain:l2"}, "f", "another init"),
        (ONE, {"seed": 7}, "f", r"another starting model \(seed, pretraining\)"),
        (ONE, {"pretraining.epochs": 77}, "f", r"another starting model \(seed, pretraining\)"),
        (ONE, {"searcher": "grid", "search.sampler.w1": {"values": [5]}}, "f", "searcher that learns"),
        (ONE, {"optimizer.epochs": 77}, "f", r"begins with 0 of 4 .* the first: optimizer.epochs = \d+, not 77"),
        (ONE.replace("cas", "sat").replace("sampler.w1", "optimizer.lr"), {}, "f", "the first: method cas"),
    ],
)
def test_what_does_not_compare_is_refused(
    tmp_path: Path, store: Store, space: str, more: dict[str, Any], fingerprint: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        recalled(sweep(tmp_path, space, **more), fingerprint, [store])


def test_what_was_never_measured_does_not_fit(tmp_path: Path, store: Store) -> None:
    new = sweep(tmp_path, ONE, objectives=["worst"], **{"evaluation.batch_size": 7, "evaluation.every": 1})
    found, told = recalled(new, "f", [store])
    assert [one["state"] for one in found] == ["FAILED", "PRUNED"]
    assert told[0].endswith("2 of 4 ended configurations of earlier; the others do not fit, the first: no metric worst")


def test_a_grid_goes_on_without_a_warm_start(tmp_path: Path) -> None:
    grid = sweep(tmp_path, ONE, searcher="grid", **{"search.sampler.w1": {"values": [5]}})
    assert recalled(grid, "f", []) == ([], [])


def test_an_unknown_sweep_is_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(InputError, match=r"unknown sweep 'earliest': did you mean 'earlier'\?"):
        recalled(sweep(tmp_path, ONE), "f", [Store(store.storage, "earliest")])
