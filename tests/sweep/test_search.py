"""The adviser: what it proposes, and that a rebuilt one goes on as an undisturbed one would."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from sweep.distributions import Floats, Values
from sweep.search import Study

SPACE: dict[str, Floats | Values] = {
    "a.log": Floats(low=0.001, high=1.0, log=True),
    "b.float": Floats(low=-1.0, high=1.0),
    "c.int": Floats(low=1, high=9, integer=True),
    "d.step": Floats(low=0.0, high=2.0, step=0.5),
    "e.even": Floats(low=2, high=64, log=True, integer=True),
    "f.kind": Values(values=("x", "y", True, 3, 0.5)),
}
DEFAULTS: dict[str, Any] = {"a.log": 0.1, "b.float": 0.0, "c.int": 3, "d.step": 1.5, "e.even": 8, "f.kind": "y"}
SEARCHERS = ("tpe", "random", "gp", "nsga2")
Trial = tuple[dict[str, Any], str, list[float] | None]


def made(searcher: str = "tpe", seed: int = 0, objectives: int = 1) -> Study:
    return Study({"only": (SPACE, DEFAULTS)}, seed, searcher, objectives)


def outcome(number: int, params: dict[str, Any]) -> tuple[str, list[float] | None]:
    """Best at b = 0.5 with kind x; every seventh trial is FAILED, another one PRUNED."""
    if number % 7 == 5:
        return "FAILED", None
    if number % 7 == 3:
        return "PRUNED", None
    return "COMPLETE", [-((params["b.float"] - 0.5) ** 2) + (params["f.kind"] == "x")]


def run(study: Study, start: int, count: int) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(start, count):
        params = study.ask(number)
        state, values = outcome(number, params)
        study.tell(number, state, values)
        trials.append((params, state, values))
    return trials


def rebuilt(history: list[Trial], searcher: str, seed: int = 0) -> Study:
    """A new study with the history as a sweep's folder gives it, through JSON."""
    study = made(searcher, seed)
    for number, (params, state, values) in enumerate(history):
        study.replay(number, json.loads(json.dumps(params)))
        study.tell(number, state, values)
    return study


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_proposals_lie_in_the_space(searcher: str) -> None:
    for params, *_ in run(made(searcher), 0, 16 if searcher == "gp" else 30):
        assert list(params) == list(SPACE)
        assert 0.001 <= params["a.log"] <= 1.0
        assert -1.0 <= params["b.float"] <= 1.0
        assert isinstance(params["c.int"], int)
        assert 1 <= params["c.int"] <= 9
        assert params["d.step"] in (0.0, 0.5, 1.0, 1.5, 2.0)
        assert isinstance(params["e.even"], int)
        assert 2 <= params["e.even"] <= 64
        assert any(params["f.kind"] is value or params["f.kind"] == value for value in ("x", "y", True, 3, 0.5))


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_trial_0_is_the_defaults(searcher: str) -> None:
    assert made(searcher).ask(0) == DEFAULTS


def test_trial_0_is_the_nearest_that_is_searched() -> None:
    outside = {"a.log": 5, "b.float": -7.0, "c.int": 2.6, "d.step": 0.8, "e.even": None, "f.kind": "z"}
    nearest = {"a.log": 1.0, "b.float": -1.0, "c.int": 3, "d.step": 1.0, "e.even": 2, "f.kind": "x"}
    assert Study({"only": (SPACE, outside)}, 0).ask(0) == nearest


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_rebuilt_study_goes_on_as_an_undisturbed_one(searcher: str, seed: int) -> None:
    """NSGA-II is in its third generation at trial 28; the Gaussian process begins at trial 14, and takes its time."""
    count, kills = {"nsga2": (30, (0, 1, 11, 15, 29)), "gp": (17, (1, 13, 16))}.get(searcher, (18, (0, 1, 4, 11, 17)))
    undisturbed = run(made(searcher, seed), 0, count)
    for killed in kills:
        assert run(rebuilt(undisturbed[:killed], searcher, seed), killed, count) == undisturbed[killed:]


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_trial_that_was_running_is_told_later(searcher: str) -> None:
    history = run(made(searcher), 0, 14)
    study = rebuilt(history[:13], searcher)
    params, state, values = history[13]
    study.replay(13, params)
    beside = study.ask(14)  # while 13 is running
    study.tell(13, state, values)
    other = rebuilt(history[:13], searcher)
    other.replay(13, params)
    assert other.ask(14) == beside


def test_no_two_trials_and_no_two_seeds_are_alike() -> None:
    for searcher in SEARCHERS:
        proposals = [json.dumps(params) for seed in (0, 1) for params, *_ in run(made(searcher, seed), 0, 15)[1:]]
        assert len(set(proposals)) == 28


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_telling_twice_is_harmless(searcher: str) -> None:
    history = run(made(searcher), 0, 13)
    study = rebuilt(history, searcher)
    for number, (_, state, values) in enumerate(history):
        study.tell(number, state, values)
        study.tell(number, "COMPLETE", [99.0])
    assert study.ask(13) == rebuilt(history, searcher).ask(13)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_value_that_is_no_number_is_a_failure(value: float | None) -> None:
    history = run(made(), 0, 12)
    params = history[4][0]
    values = None if value is None else [value]
    odd = [*history[:4], (params, "COMPLETE", values), *history[5:]]
    failed = [*history[:4], (params, "FAILED", None), *history[5:]]
    assert rebuilt(odd, "tpe").ask(12) == rebuilt(failed, "tpe").ask(12)
    states = [trial.state.name for trial in rebuilt(odd, "tpe")._study.trials]
    assert states[:6] == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAIL", "FAIL"]


def test_tpe_learns() -> None:
    space: dict[str, Floats | Values] = {"x": Floats(low=-10, high=10)}
    values = []
    study = Study({"only": (space, {"x": 9.0})}, 0)
    for number in range(40):
        value = -((study.ask(number)["x"] - 3) ** 2)
        study.tell(number, "COMPLETE", [value])
        values.append(value)
    assert sum(values[20:]) / 20 > sum(values[:20]) / 20 + 5
    assert max(values) > -0.1


def test_nothing_to_search_proposes_the_base_trial() -> None:
    study = Study({"only": ({}, {})}, 0)
    assert [study.ask(number) for number in range(3)] == [{}, {}, {}]


# several objectives, constraints, a warm start

LINE: dict[str, Floats | Values] = {"x": Floats(low=0.0, high=1.0), "y": Floats(low=0.0, high=1.0)}
START = {"x": 0.5, "y": 1.0}
NEAR = 0.1


def traded(params: dict[str, Any]) -> list[float]:
    """Its front is y = 0, where one of the two objectives is paid for with the other."""
    return [params["x"] - params["y"], 1 - params["x"] - params["y"]]


def searched(study: Study, count: int, objectives: int = 2, bound: float | None = None) -> list[dict[str, Any]]:
    """The configurations proposed. `bound`: of x from above."""
    found = []
    for number in range(count):
        found.append(study.ask(number))
        constraints = {} if bound is None else {"x": found[-1]["x"] - bound}
        study.tell(number, "COMPLETE", traded(found[-1])[:objectives], constraints=constraints)
    return found


@pytest.mark.parametrize(("searcher", "count"), [("tpe", 60), ("nsga2", 100), ("gp", 16)])
def test_the_front_of_two_objectives_is_found(searcher: str, count: int) -> None:
    """Its whole length: of the last proposals, more lie near it than of random ones, and at both of its ends."""
    late = searched(Study({"only": (LINE, START)}, 0, searcher, 2), count)[-count // 3 :]
    near = [params["x"] for params in late if params["y"] < NEAR]
    assert len(near) > 3 * NEAR * len(late)
    assert min(near) < 0.3
    assert max(near) > 0.7


@pytest.mark.parametrize(("searcher", "count"), [("tpe", 60), ("nsga2", 100), ("gp", 16)])
def test_constraints_steer(searcher: str, count: int) -> None:
    """The objective pulls to large x, and x is to be at most 0.3: after the first ten, drawn at random, of which 3 in
    10 keep that, about half do."""
    found = searched(Study({"only": (LINE, START)}, 0, searcher), count, objectives=1, bound=0.3)
    kept = [params["x"] <= 0.3 for params in found]
    assert sum(kept[10:]) / (count - 10) > max(sum(kept[:10]) / 10, 0.45)


@pytest.mark.parametrize(("searcher", "count", "killed"), [("tpe", 16, 13), ("nsga2", 26, 23), ("gp", 13, 11)])
def test_a_rebuilt_study_of_several_objectives_with_constraints_goes_on(searcher: str, count: int, killed: int) -> None:
    def study() -> Study:
        return Study({"only": (LINE, START)}, 3, searcher, 2)

    undisturbed = searched(study(), count, bound=0.3)
    again = study()
    for number, params in enumerate(undisturbed[:killed]):
        again.replay(number, json.loads(json.dumps(params)))
        again.tell(number, "COMPLETE", traded(params), constraints={"x": params["x"] - 0.3})
    for number in range(killed, count):
        params = again.ask(number)
        assert params == undisturbed[number]
        again.tell(number, "COMPLETE", traded(params), constraints={"x": params["x"] - 0.3})


@pytest.mark.parametrize("constraints", [{"x": math.nan}, {"x": 0.1, "y": math.inf}])
def test_a_constraint_that_is_no_number_is_a_failure(constraints: dict[str, float]) -> None:
    study = Study({"only": (LINE, START)}, 0)
    study.ask(0)
    study.tell(0, "COMPLETE", [0.5], constraints=constraints)
    assert [trial.state.name for trial in study._study.trials] == ["FAIL"]


def test_a_pruned_trial_keeps_what_it_reached_on_the_way() -> None:
    """Of one objective; Optuna has no place for it beside several."""
    for objectives, kept in ((1, {1: 0.25, 3: 0.5}), (2, {})):
        study = Study({"only": (LINE, START)}, 0, "tpe", objectives)
        study.ask(0)
        study.tell(0, "PRUNED", None, {1: 0.25, 3: 0.5}, {"x": 0.2})
        (trial,) = study._study.trials
        assert (trial.state.name, trial.intermediate_values, trial.constraints) == ("PRUNED", kept, {"x": 0.2})


def peak(params: dict[str, Any]) -> float:
    return -((params["x"] - 0.9) ** 2) - (params["y"] - 0.1) ** 2


def warmed(seed: int, searcher: str, earlier: list[dict[str, Any]]) -> Study:
    study = Study({"only": (LINE, START)}, seed, searcher)
    for params in earlier:
        study.recall(params, "COMPLETE", [peak(params)], {})
    return study


@pytest.mark.parametrize(("searcher", "seeds"), [("tpe", 4), ("nsga2", 4), ("gp", 1)])
def test_a_warm_start_helps(searcher: str, seeds: int) -> None:
    """The mean of the first proposals after the defaults, of which a cold start draws all at random."""

    def first(study: Study) -> float:
        found = []
        for number in range(6):
            found.append(peak(study.ask(number)))
            study.tell(number, "COMPLETE", found[-1:])
        return sum(found[1:]) / 5

    rng = random.Random(0)
    earlier = [{"x": rng.random(), "y": rng.random()} for _ in range(30)]
    cold = [first(warmed(seed, searcher, [])) for seed in range(seeds)]
    warm = [first(warmed(seed, searcher, earlier)) for seed in range(seeds)]
    assert sum(warm) / seeds > sum(cold) / seeds + 0.1


@pytest.mark.parametrize("searcher", ["tpe", "nsga2"])
def test_a_rebuilt_warm_study_goes_on_as_an_undisturbed_one(searcher: str) -> None:
    earlier = [{"x": k / 15, "y": 1 - k / 15} for k in range(15)]
    study, found = warmed(0, searcher, earlier), []
    for number in range(12):
        found.append(study.ask(number))
        study.tell(number, "COMPLETE", [peak(found[-1])])
    again = warmed(0, searcher, json.loads(json.dumps(earlier)))
    for number, params in enumerate(found[:8]):
        again.replay(number, params)
        again.tell(number, "COMPLETE", [peak(params)])
    for number in range(8, 12):
        assert again.ask(number) == found[number]
        again.tell(number, "COMPLETE", [peak(found[number])])
    assert found[0] == START
