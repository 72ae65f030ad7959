"""Early stopping and confirmation, fed with what Tune tells: whenever the driver is killed, the next one decides as the
first would have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher
from shells import Shell

from sweep import status
from sweep.alternatives import Sweep
from sweep.control import Control
from sweep.layers import resolve
from sweep.planner import Planner
from sweep.settings import nest
from sweep.stopper import Stopper
from sweep.storage import Storage
from sweep.store import Store
from sweep.trial import Job

SPACE = """\
dataset: digits
attacks: [linf, l1, fog]
optimizer.epochs: 9
methods:
  sat: {search: {optimizer.lr: {values: [0.1, 0.2, 0.3, 0.4]}}}
  e-at-all: {search: {sampler.forgetting: {low: 0.5, high: 1}}}
"""
ASHA = {"stopping.name": "asha"}
WHOLE: dict[str, Any] = ASHA | {"stopping.reduction": 2, "trials": 8, "seed": 4, "seeds": [4, 9], "controls": True}
WHOLE |= {"confirm": 2, "confirm_seeds": [4, 17, 18]}
LAST = 9


def sweep_of(folder: Path, settings: Mapping[str, Any]) -> Sweep:
    path = folder / "space.yaml"
    path.write_text(SPACE)
    return resolve(str(path), nest(settings))


def job(folder: Path, settings: Mapping[str, Any]) -> Job:
    sweep = sweep_of(folder, settings)
    store = Store(Storage(str(folder / "results")), "s")
    document = json.loads(json.dumps(sweep.model_dump(mode="json")))
    store.create({"trials": sweep.trials, "fingerprint": "data", "spec": document})
    return Job(store.storage.uri, "s", document, "init", "data", "")


def share(*of: Any) -> float:
    return int(sha256(repr(of).encode()).hexdigest()[:8], 16) / 2**32


def value_at(key: str, epoch: int) -> float:
    """What the key is worth, and noise."""
    return 0.5 * share(key) + 0.5 * share(key, epoch)


class Killed(Exception):
    pass


@dataclass(frozen=True)
class Trial:
    trial_id: str
    config: dict[str, Any]


class Tune:
    """Runs one trial at a time as Tune does; `stored` is what the runs left, epoch by epoch."""

    def __init__(self, made: Job) -> None:
        self.job, self.started, self.left = made, 0, -1
        self.stored: dict[str, int] = {}
        self.trained: list[tuple[str, int]] = []

    def drive(self, moments: int = -1) -> Planner | None:
        """A driver that is killed after so many moments, if there are that many."""
        self.left = moments
        planner = Planner(self.job, lambda *_: None, Control(self.job.store.folder, "owner"))
        try:
            while (suggested := planner.suggest(str(self.started))) is not Searcher.FINISHED:
                assert suggested is not None, "one trial at a time: there is always a next one, or none"
                self._moment()
                self._run(planner, Trial(str(self.started), suggested))
                self.started += 1
        except Killed:
            self.started += 1
            return None
        return planner

    def _moment(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def _run(self, planner: Planner, trial: Trial) -> None:
        task, key = trial.config["task"], trial.config["task"]["key"]
        if planner.stopper:
            planner.stopper.on_trial_add(None, trial)
        first = self.stored.get(key, 1)
        for epoch in range(first, LAST + 1):
            if self.stored.get(key) != epoch:
                self.trained.append((key, epoch))
            self.stored[key] = epoch
            self._moment()
            result = {"epoch": epoch, "so_far": json.dumps(self._so_far(key, epoch))}
            if planner.stopper and planner.stopper.on_trial_result(None, trial, result) == "STOP":
                self._moment()
                planner.stopper.on_trial_complete(None, trial, result)
                planner.on_trial_complete(trial.trial_id, result)
                return
            planner.on_trial_result(trial.trial_id, result)
            self._moment()
        probabilities = {"linf": 0.5, "l1": 0.25, "fog": 0.25}
        self.job.store.write_epochs(key, [{"epoch": LAST, "number": task["number"], "probabilities": probabilities}])
        outcome = self._so_far(key, LAST) | {"state": "COMPLETE", "value": value_at(key, LAST)}
        self._moment()
        planner.on_trial_complete(trial.trial_id, {"outcome": json.dumps(outcome)})

    def _so_far(self, key: str, epoch: int) -> dict[str, Any]:
        return {"seconds": 60.0, "intermediate": {at: value_at(key, at) for at in range(1, min(epoch, LAST - 1) + 1)}}


COLUMNS = ("number", "method", "params", "seed", "replay", "confirm", "state", "value", "error", "intermediate")


def rows(made: Job) -> list[dict[str, Any]]:
    return [{name: row[name] for name in COLUMNS} for row in made.store.trials().to_pylist()]


def reached(row: Mapping[str, Any]) -> int:
    return max(map(int, json.loads(row["intermediate"])))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Tune:
    tune = Tune(job(tmp_path_factory.mktemp("undisturbed"), WHOLE))
    tune.drive()
    return tune


def test_those_behind_are_pruned_with_their_values_on_the_way(undisturbed: Tune) -> None:
    held = rows(undisturbed.job)
    pruned = [row for row in held if row["state"] == "PRUNED" and row["intermediate"]]
    assert {row["state"] for row in held} == {"COMPLETE", "PRUNED"}
    assert {1} < {reached(row) for row in pruned} <= {1, 2, 4, 8}, "at rungs, and never at the last epoch"
    assert all(row["value"] is None for row in pruned)
    assert all(reached(row) == LAST - 1 for row in held if row["state"] == "COMPLETE")
    assert not any(row["replay"] or row["confirm"] for row in pruned)


def test_a_configuration_ends_with_its_first_seed_that_is_pruned(undisturbed: Tune) -> None:
    held = rows(undisturbed.job)
    stopped = {row["number"] for row in held if row["seed"] == 4 and row["state"] == "PRUNED"}
    others = [row for row in held if row["number"] in stopped and row["seed"] == 9 and not row["replay"]]
    assert {(row["state"], row["error"]) for row in others} == {("PRUNED", "seed 4 was stopped early")}
    assert len(others) == len(stopped) > 0


def test_the_best_by_the_search_are_confirmed_and_stay_the_best(undisturbed: Tune) -> None:
    held, store = rows(undisturbed.job), undisturbed.job.store
    found = store.configurations()
    searched = {
        one["number"]: np.mean([run["value"] for run in one["runs"] if not run["confirm"]]) for one in found
    }  # fmt: skip
    assert [one["value"] for one in found] == pytest.approx(list(searched.values()))
    confirmed = [row for row in held if row["confirm"] and not row["replay"]]
    first = found[0]
    second = next(one for one in found if one["value"] < first["value"])  # equal work is confirmed once
    assert {row["number"] for row in confirmed} == {first["number"], second["number"]}
    assert sorted(row["seed"] for row in confirmed) == [17, 17, 18, 18]
    for one in (first, second):
        assert [run["seed"] for run in one["runs"]].count(17) == 1
        assert one["confirmed"]["value"] == pytest.approx(np.mean([run["value"] for run in one["runs"]]))
    assert sum(one["confirmed"] != {} for one in found) == 2
    assert status.best(store)[0]["confirmed value"] == first["confirmed"]["value"]


@pytest.mark.parametrize("seed", range(4))
def test_drivers_that_are_killed_decide_as_an_undisturbed_one(seed: int, tmp_path: Path, undisturbed: Tune) -> None:
    rng, tune = np.random.default_rng(seed), Tune(job(tmp_path, WHOLE))
    for _ in range(int(rng.integers(2, 12))):
        tune.drive(int(rng.integers(0, 60)))
    planner = tune.drive()
    assert planner is not None
    assert rows(tune.job) == rows(undisturbed.job)
    assert tune.trained == undisturbed.trained, "each epoch once, and none of a run that was to be stopped"


def test_a_driver_killed_at_any_moment_of_the_confirmation_plans_it_once(tmp_path: Path) -> None:
    settings = {"trials": 3, "confirm": 1, "confirm_seeds": [1, 2]}
    tune = Tune(job(tmp_path, settings))
    while tune.drive(11) is None:
        pass
    plans = tune.job.store.plans()
    assert sorted(len(plan["runs"]) for plan in plans) == [1, 1, 3]
    assert {row["state"] for row in rows(tune.job)} == {"COMPLETE"}


def test_more_trials_after_the_confirmation_may_be_confirmed_too(tmp_path: Path) -> None:
    tune = Tune(job(tmp_path, {"trials": 2, "seed": 1, "confirm": 1, "confirm_seeds": [11, 12]}))
    tune.drive()
    before, document = tune.job.store.configurations()[0], tune.job.document
    tune.job = Job(tune.job.storage, "s", document | {"trials": 5}, "init", "data", "")
    planner = tune.drive()
    assert planner is not None
    after = tune.job.store.configurations()
    assert after[0]["number"] != before["number"], "the toy's values have a better one among the 5"
    assert [len(one["runs"]) for one in after if one["number"] in (before["number"], after[0]["number"])] == [3, 3]
    assert sum(row["confirm"] for row in rows(tune.job)) == 4


def test_what_a_search_is_told_of_a_pruned_configuration(undisturbed: Tune) -> None:
    told: dict[int, tuple[Any, ...]] = {}

    class Heard(Planner):
        def _replay(self, again: Any) -> None:
            self.search.tell = lambda number, *said: told.update({number: said})  # type: ignore[method-assign]
            super()._replay(again)

    Heard(undisturbed.job, lambda *_: None, Control(undisturbed.job.store.folder, "owner"))
    for number, (state, values, way, _) in told.items():
        mine = [r for r in rows(undisturbed.job) if r["number"] == number and not r["replay"] and not r["confirm"]]
        held = [json.loads(row["intermediate"]) for row in mine if row["intermediate"]]
        assert state == ("PRUNED" if "PRUNED" in {row["state"] for row in mine} else "COMPLETE")
        assert (values is None) == (state == "PRUNED")
        assert way[1] == pytest.approx(np.mean([one["1"] for one in held]))
    assert {state for state, *_ in told.values()} == {"COMPLETE", "PRUNED"}


# the scheduler


def task_of(number: int, seed: int = 0, replay: Any = None, confirm: bool = False) -> dict[str, Any]:
    return {"number": number, "seed": seed, "replay": replay, "confirm": confirm}


def stopped_by(stopper: Stopper, numbers: range, way: Any) -> dict[int, int]:
    """Number -> the epoch at which it was stopped, one after the other; `way(number, epoch)` is its value."""
    found = {}
    for number in numbers:
        trial = Trial(f"t{number}", {"task": task_of(number)})
        stopper.on_trial_add(None, trial)
        for epoch in range(1, LAST):
            values = {at: way(number, at) for at in range(1, epoch + 1)}
            result = {"epoch": epoch, "so_far": json.dumps({"intermediate": values})}
            if stopper.on_trial_result(None, trial, result) == "STOP":
                found[number] = epoch
                break
    assert stopper.stopped == {f"t{number}": epoch for number, epoch in found.items()}
    return found


def test_asha_keeps_the_best_third_at_each_rung(tmp_path: Path) -> None:
    """By hand: the first has nobody to be behind; later ones stop where they are below the best third of those before,
    at epochs 1 and 3."""
    curves = {0: (0.5, 0.5), 1: (0.4, 0.9), 2: (0.6, 0.4), 3: (0.6, 0.45), 4: (0.7, 0.6)}

    def way(number: int, epoch: int) -> float:
        return curves[number][epoch >= 3]

    assert stopped_by(Stopper(sweep_of(tmp_path, ASHA)), range(5), way) == {1: 1, 2: 3, 3: 3}


@pytest.mark.parametrize("grace", [1, 2])
@pytest.mark.parametrize("reduction", [2, 2.5, 3])
def test_asha_stops_whom_rays_own_scheduler_would(tmp_path: Path, grace: int, reduction: float) -> None:
    settings = ASHA | {"stopping.grace": grace, "stopping.reduction": reduction}
    rays = AsyncHyperBandScheduler(
        time_attr="t", metric="v", mode="max", max_t=LAST, grace_period=grace, reduction_factor=reduction
    )
    expected = {}
    for number in range(40):
        trial = Trial(f"t{number}", {})
        rays.on_trial_add(None, trial)
        for epoch in range(1, LAST):
            if rays.on_trial_result(None, trial, {"t": epoch, "v": value_at(str(number), epoch)}) == "STOP":
                expected[number] = epoch
                break
    found = stopped_by(Stopper(sweep_of(tmp_path, settings)), range(40), lambda n, epoch: value_at(str(n), epoch))
    assert found == expected
    assert len(found) > 10


def test_hyperband_deals_configurations_to_brackets_alike_whoever_drives(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, {"stopping.name": "hyperband"})
    runs = [
        stopped_by(Stopper(sweep), range(60), lambda number, epoch: value_at(str(number), epoch)) for _ in range(2)
    ]  # fmt: skip
    assert runs[0] == runs[1]
    first_rungs = {bracket._rungs[-1][0] for bracket in Stopper(sweep)._brackets}
    assert first_rungs == {1, 3, 9}
    assert {1, 3} == set(runs[0].values())
    assert len(runs[0]) < len(
        stopped_by(Stopper(sweep_of(tmp_path, ASHA)), range(60), lambda n, e: value_at(str(n), e))
    )


def test_a_run_that_reports_late_is_stopped_at_the_rung_that_it_missed(tmp_path: Path) -> None:
    """Reports of a worker group may be lost with its driver: the next one holds all values."""
    stopper = Stopper(sweep_of(tmp_path, ASHA))
    stopped_by(stopper, range(3), lambda number, epoch: 0.5)
    trial = Trial("late", {"task": task_of(7)})
    stopper.on_trial_add(None, trial)
    said = json.dumps({"intermediate": {1: 0.6, 2: 0.6, 3: 0.1, 4: 0.9, 5: 0.9}})
    assert stopper.on_trial_result(None, trial, {"epoch": 5, "so_far": said}) == "STOP"
    assert stopper.stopped["late"] == 3


def test_other_seeds_are_not_compared_and_end_with_the_first(tmp_path: Path) -> None:
    stopper = Stopper(sweep_of(tmp_path, ASHA | {"seeds": [0, 5]}))
    told: dict[str, Any] = {}

    def decided(name: str, value: float, **task: Any) -> str:
        trial = Trial(name, {"task": task_of(**task)})
        stopper.on_trial_add(None, trial)
        told[name] = stopper.on_trial_result(
            None, trial, {"so_far": json.dumps({"intermediate": {1: value, 2: value}})}
        )
        return str(told[name])

    assert decided("first", 0.5, number=0) == "CONTINUE"
    assert decided("its other seed", 0.1, number=0, seed=5) == "CONTINUE"
    assert decided("before", 0.1, number=1, seed=5) == "CONTINUE"
    assert decided("behind", 0.4, number=1) == "STOP"
    assert decided("beside it", 0.9, number=1, seed=5) == "STOP"
    assert decided("its control", 0.1, number=1, seed=5, replay={"linf": 1.0}) == "CONTINUE"
    assert decided("confirming", 0.1, number=0, seed=7, confirm=True) == "CONTINUE"
    assert stopper.stopped == {"behind": 1, "beside it": 2}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (ASHA | {"evaluation.every": 0}, "stopping.name: expected evaluation.every of at least 1 with asha, got 0"),
        (ASHA | {"stopping.grace": 9}, "stopping.grace: expected less than optimizer.epochs, 9, got 9"),
        ({"stopping.name": "median"}, "stopping.name: expected"),
        ({"stopping.reduction": 1}, "stopping.reduction: expected > 1"),
        ({"stopping.gracious": 1}, "stopping.gracious: unknown key; did you mean stopping.grace?"),
        ({"confirm": 2}, "confirm: expected how many configurations and confirm_seeds"),
        ({"confirm_seeds": [1]}, "confirm: expected how many configurations and confirm_seeds"),
        ({"confirm": 2, "confirm_seeds": [0]}, "confirm_seeds: expected one at least that the search does not run"),
        ({"confirm": 2, "confirm_seeds": [1, 1]}, "confirm_seeds: expected each once, got 1 twice"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + fault.replace("?", r"\?")):
        sweep_of(tmp_path, settings)


def test_early_stopping_judges_every_epoch_where_nothing_else_is_said(tmp_path: Path) -> None:
    assert sweep_of(tmp_path, ASHA).trial.evaluation.every == 1
    assert sweep_of(tmp_path, ASHA | {"evaluation.every": 3}).trial.evaluation.every == 3
    assert sweep_of(tmp_path, {}).trial.evaluation.every == 0


def test_the_command_line_says_what_is_wrong(sweep: Shell) -> None:
    assert "confirm: expected how many" in sweep.refused("run", "cas", "--confirm-top", "2")
    assert "stopping.name: expected" in sweep.refused("run", "cas", "--stopping", "median")
    assert "optimizer.epochs, 2, got 2" in sweep.refused(
        "run", "cas", "--profile", "smoke", "--stopping", "asha", "--set", "stopping.grace=2"
    )


def test_a_sweep_is_not_finished_before_its_best_is_confirmed(tmp_path: Path) -> None:
    tune = Tune(job(tmp_path, {"trials": 1, "confirm": 1, "confirm_seeds": [1]}))
    store, document = tune.job.store, tune.job.document
    tune.job = Job(tune.job.storage, "s", document | {"confirm": 0, "confirm_seeds": []}, "init", "data", "")
    tune.drive()
    assert "resume s" in status.driver(store), "killed between the last trial and the plan of the confirmation"
    tune.job = Job(tune.job.storage, "s", document, "init", "data", "")
    tune.drive()
    assert status.driver(store) == "finished"
