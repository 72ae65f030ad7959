"""`sweep run` of a space that is an experiment: its folder, its table, going on, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shells import Shell

from attacks.errors import InputError
from sweep import spaces
from sweep.experiments import cases
from sweep.settings import read_yaml
from sweep.storage import Storage
from sweep.store import Store

SMALL = """\
experiment: svm
cases:
  worst: {samples: 2000, steps: 4}
  mean: {inner: avg, samples: 2000, steps: 4}
"""


def test_the_papers_cases_have_the_papers_constants() -> None:
    name = "papers/adaptive-budget-svm"
    made = cases(read_yaml(spaces.read(name), name), name)
    assert {(one.dimension, one.samples, one.p, one.mu) for one in made.values()} == {(1000, 100_000, 0.95, None)}
    assert {(one.linf, one.l2, one.l1) for one in made.values()} == {(2, 2, 2), (2, 2, 4), (2, 4, 2)}


def test_it_runs_goes_on_and_is_asked(sweep: Shell) -> None:
    space = sweep.write(SMALL)
    told = sweep("run", space, "--id", "x", "--trials", "1")
    assert told.code == 0, told.err
    assert told.out.splitlines()[0] == "x"
    whole = sweep("run", space, "--id", "y")
    assert whole.code == 0, whole.err
    assert [line.split()[0] for line in whole.out.splitlines()[2:]] == ["worst", "mean"] or "worst" in whole.out
    store = Store(Storage(str(sweep.results)), "y")
    rows = store.trials().to_pylist()
    assert [(row["method"], row["state"]) for row in rows] == [("worst", "COMPLETE"), ("mean", "COMPLETE")]
    epochs = store.epochs().to_pylist()
    assert [row["flips"] for row in epochs if row["number"] == 0] == [1000] * 4
    assert json.loads(epochs[0]["domination"]) == {"linf": 1.0, "l2": 0.0, "l1": 0.0}

    (Path(store.folder.where()) / "parquet" / "trials").rename(sweep.results / "gone")
    again = sweep("resume", "y")
    assert again.code == 0, again.err
    assert [row["value"] for row in store.trials().to_pylist()] == [None, None]
    assert store.epochs().to_pylist() == epochs
    assert sweep("ls").code == 0
    asked = sweep("query", "select max(flips) as most from epochs where sweep_id = 'y'", "--format", "json")
    assert json.loads(asked.out) == [{"most": 1000}]
    assert sweep.refused("status", "y").startswith("y is an experiment, not a sweep: see `python -m sweep resume y")


def test_equal_cases_and_cases_without_a_loss_are_told(sweep: Shell) -> None:
    free = "{samples: 100, steps: 2, p: 1.0, mu: 2.0, linf: 0.0, l2: 0.0, l1: 0.0}"
    told = sweep("run", sweep.write(f"experiment: svm\ncases:\n  a: {free}\n  b: {free}\n"), "--id", "z")
    assert told.code == 0, told.err
    epochs = Store(Storage(str(sweep.results)), "z").epochs().to_pylist()
    assert [row["number"] for row in epochs] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("experiment: svmm\ncases: {a: {}}", "unknown experiment 'svmm': did you mean 'svm'?"),
        ("experiment: svm", "s: expected cases by name, got None"),
        ("experiment: svm\ncases: {a: {}}\ntrials: 3", "s: expected experiment and cases, got trials"),
        ("experiment: svm\ncases: {a: {p: 2}, b: {iner: max}}", "2 faults in s:\n  cases.a.p: expected p between"),
        ("experiment: svm\ncases: {b: {iner: max}}", "s: cases.b.iner: unknown key; did you mean inner?"),
    ],
)
def test_what_is_no_experiment_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        cases(read_yaml(text, "s"), "s")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("more", ["--dataset digits", "--set sampler.w1=3", "--profile smoke"])
def test_settings_of_trials_are_refused(sweep: Shell, more: str) -> None:
    said = sweep.refused("run", "papers/adaptive-budget-svm", *more.split())
    assert said.startswith("expected only --trials, --id and --storage for the experiment papers/adaptive-budget-svm, ")
