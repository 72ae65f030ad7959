"""The planner alone, fed with what Tune tells it: whenever its driver is killed, the next one plans what the first
would have, runs nothing twice and loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher

from sweep.control import Control, Limits
from sweep.layers import resolve
from sweep.planner import Planner
from sweep.settings import nest
from sweep.storage import Storage
from sweep.store import Store
from sweep.trial import Job

SPACE = """\
dataset: digits
attacks: [linf, l1, fog]
trials: 7
seeds: [0, 5]
controls: true
methods:
  sat: {search: {optimizer.lr: {values: [0.1, 0.2]}}}
  e-at-all: {search: {sampler.forgetting: {low: 0.5, high: 1}}}
"""


GOALS = """\
dataset: digits
attacks: [linf, l1, fog]
trials: 26
seeds: [0, 5]
method: cas
searcher: nsga2
objectives: [clean, value]
constraints: [worst >= 0.1]
search: {sampler.w1: {low: 2, high: 30, log: true}, optimizer.lr: {low: 0.01, high: 0.3}}
"""


def job(folder: Path, space: str = SPACE, **more: Any) -> Job:
    path = folder / "space.yaml"
    path.write_text(space)
    sweep = resolve(str(path), nest({}))
    store = Store(Storage(str(folder / "results")), "s")
    store.create({"trials": sweep.trials, "spec": sweep.model_dump(mode="json"), **more})
    return Job(store.storage.uri, "s", json.loads(json.dumps(sweep.model_dump(mode="json"))), "init", "data", "")


class Tune:
    """Runs one trial at a time; `value` says how each ends."""

    def __init__(self, made: Job) -> None:
        self.job, self.started = made, 0
        self.fails: set[int] = set()
        self.ran: list[tuple[int, str, int, bool]] = []

    def drive(self, runs: int | None = None, limits: Limits = Limits(), retry_failed: bool = False) -> Planner:  # noqa: B008
        """A driver that is killed while its trial number `runs` is running, if that many are left."""
        control = Control(self.job.store.folder, "owner", limits, gpus=1.0)
        planner = Planner(self.job, lambda *_: None, control, retry_failed)
        while True:
            self.started += 1
            planner.listener().on_step_begin(self.started, [])
            suggested = planner.suggest(str(self.started))
            if suggested is Searcher.FINISHED:
                return planner
            assert suggested is not None, "one trial at a time: there is always a next one, or none"
            if runs == 0:
                return planner
            runs = None if runs is None else runs - 1
            self._end(planner, suggested["task"])

    def _end(self, planner: Planner, task: dict[str, Any]) -> None:
        value = int(task["key"], 16) % 997 / 997
        self.ran.append((task["number"], task["key"], task["seed"], task["replay"] is not None))
        probabilities = {"linf": 0.5 + value / 4, "l1": 0.25, "fog": 0.25 - value / 4}
        self.job.store.write_epochs(task["key"], [{"epoch": 1, "probabilities": probabilities}])
        metrics = {"clean": 1 - value, "worst": value / 2}
        outcome: dict[str, Any] = {"state": "COMPLETE", "value": value, "metrics": metrics, "seconds": 1800.0}
        if task["number"] in self.fails:
            outcome = {"state": "FAILED", "error": "it diverged", "seconds": 1800.0}
        planner.on_trial_complete(str(self.started), {"outcome": json.dumps(outcome)})


def rows(made: Job) -> list[tuple[Any, ...]]:
    return [
        (row["number"], row["method"], row["params"], row["seed"], row["replay"], row["state"], row["value"])
        for row in made.store.trials().to_pylist()
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    tune = Tune(job(tmp_path_factory.mktemp("undisturbed")))
    tune.drive()
    return rows(tune.job)


def test_each_configuration_has_its_seeds_and_its_controls(undisturbed: list[tuple[Any, ...]]) -> None:
    """SAT's probabilities are fixed: no control. Numbers 0 and 1 are the defaults of the two methods."""
    assert [row[1] for row in undisturbed if row[0] == 0] == ["sat"] * 2
    for number in range(7):
        mine = [row for row in undisturbed if row[0] == number]
        assert sorted((row[3], row[4]) for row in mine) == (
            [(0, False), (5, False)] if mine[0][1] == "sat" else [(0, False), (0, True), (5, False), (5, True)]
        )
    assert {row[5] for row in undisturbed} == {"COMPLETE"}


@pytest.mark.parametrize("seed", range(8))
def test_drivers_that_are_killed_leave_what_an_undisturbed_one_does(
    seed: int, tmp_path: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    rng, tune = np.random.default_rng(seed), Tune(job(tmp_path))
    for _ in range(int(rng.integers(1, 6))):
        tune.drive(int(rng.integers(0, 5)))
    planner = tune.drive()
    assert rows(tune.job) == undisturbed
    assert len(set(tune.ran)) == len(tune.ran), "nothing ran to its end twice"
    assert planner.done() == len(undisturbed)


def test_a_control_of_several_trials_at_a_time_is_not_forgotten(tmp_path: Path) -> None:
    """Where all have been proposed but one still runs that will want a control, Tune is asked to come back."""
    made = job(tmp_path)
    planner = Planner(made, lambda *_: None, Control(made.store.folder, "owner"))
    running: dict[str, dict[str, Any]] = {}
    for trial in range(100):
        suggested = planner.suggest(str(trial))
        if suggested is None or suggested is Searcher.FINISHED:
            break
        running[str(trial)] = suggested["task"]
    assert suggested is None
    while running:
        trial_id, task = running.popitem()
        made.store.write_epochs(task["key"], [{"epoch": 1, "probabilities": {"linf": 0.5, "l1": 0.25, "fog": 0.25}}])
        planner.on_trial_complete(trial_id, {"outcome": json.dumps({"state": "COMPLETE", "value": 0.5})})
        suggested = planner.suggest(f"{trial_id}-next")
        if isinstance(suggested, dict):
            running[f"{trial_id}-next"] = suggested["task"]
    assert suggested is Searcher.FINISHED
    adaptive = [row for row in made.store.trials().to_pylist() if row["method"] == "e-at-all"]
    assert sum(row["replay"] for row in adaptive) == len(adaptive) / 2 > 0


def states(made: Job) -> list[str]:
    return [row["state"] for row in made.store.trials().to_pylist()]


def test_failed_trials_are_run_again_where_that_is_asked(tmp_path: Path, undisturbed: list[tuple[Any, ...]]) -> None:
    tune = Tune(job(tmp_path))
    tune.fails = {0}
    tune.drive()
    assert states(tune.job).count("FAILED") >= 2, "equal configurations, that did not run, fail with it"
    tune.fails, before = set(), len(tune.ran)
    tune.drive()
    assert len(tune.ran) == before, "a failure stands"
    tune.drive(retry_failed=True)
    assert {run[0] for run in tune.ran[before:]} == {0}
    assert set(states(tune.job)) == {"COMPLETE"}


@pytest.mark.parametrize(
    ("limits", "ends", "why"),
    [(Limits(failed=2), 2, "2 trials failed"), (Limits(gpu_hours=1.6), 4, "its trials took 2.00 of 1.6 GPU-hours")],
)
def test_a_limit_begins_no_more_trials(tmp_path: Path, limits: Limits, ends: int, why: str) -> None:
    """Half an hour each, on one GPU; the first two of a number fail."""
    tune = Tune(job(tmp_path))
    tune.fails = {0}
    assert tune.drive(limits=limits).control.reason == why
    assert len(tune.ran) == ends
    assert len([state for state in states(tune.job) if state != "PLANNED"]) == ends
    tune.drive(limits=limits)
    assert len(tune.ran) == ends, "what earlier drivers ran counts too"


def test_a_time_limit_begins_no_more_trials(tmp_path: Path) -> None:
    tune = Tune(job(tmp_path))
    assert tune.drive(limits=Limits(seconds=1e-9)).control.reason == "its 1e-09 s are over"
    assert tune.ran == []


@pytest.mark.parametrize("seed", range(2))
def test_a_search_with_a_goal_of_its_own_survives_its_drivers(seed: int, tmp_path: Path) -> None:
    """Two objectives and a constraint, means over two seeds, from a warm start, by NSGA-II into its third generation;
    every metric is in the store, and the search was told the means."""
    earlier = {"params": {"sampler.w1": 5.0, "optimizer.lr": 0.1}, "state": "COMPLETE"}
    earlier |= {"metrics": {"clean": 0.5, "value": 0.5, "worst": 0.25}}
    warm = {"warm_start": {"told": [], "trials": [earlier] * 3}}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, killed = Tune(job(tmp_path / "whole", GOALS, **warm)), Tune(job(tmp_path / "killed", GOALS, **warm))
    told = whole.drive().search._study.trials  # type: ignore[attr-defined]
    rng = np.random.default_rng(seed)
    for _ in range(4):
        killed.drive(int(rng.integers(0, 20)))
    again = killed.drive().search._study.trials  # type: ignore[attr-defined]
    assert rows(killed.job) == rows(whole.job)
    assert [trial.values for trial in again] == [trial.values for trial in told]
    assert [trial.constraints for trial in again] == [trial.constraints for trial in told]
    assert len(told) == 3 + 26
    ranked = {one["number"]: one for one in whole.job.store.configurations()}
    for number, trial in enumerate(told[3:]):
        runs = [row for row in whole.job.store.trials().to_pylist() if row["number"] == number]
        value = sum(row["value"] for row in runs) / 2
        assert trial.values == pytest.approx([1 - value, value])
        assert trial.constraints == {"worst >= 0.1": pytest.approx(0.1 - value / 2)}
        assert ranked[number]["values"] == trial.values
    assert json.loads(runs[0]["metrics"]) == {"clean": 1 - runs[0]["value"], "worst": runs[0]["value"] / 2}
