"""Joint spaces, grids, seeds and controls: what they resolve to, what is proposed, and a real sweep of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeps import Sweeps

from attacks.errors import InputError
from sweep import tables
from sweep.alternatives import Sweep, reload
from sweep.bits import unpack
from sweep.layers import resolve
from sweep.search import searcher
from sweep.settings import nest

JOINT = """\
dataset: digits
optimizer.epochs: 3
methods:
  sat: {}
  cas: {space: cas, sampler.w3: 0.25}
  max3: {method: max, train_attacks: [linf, l2, l1], search: {inner.adaptive: {values: [none, l1]}}}
"""
GRID = """\
method: cas
searcher: grid
seeds: [3, 1]
search:
  sampler.w1: {values: [10, 2]}
  sampler.w3: {low: 0, high: 1, step: 0.5}
"""


def joint(tmp_path: Path, text: str = JOINT, **overrides: Any) -> Sweep:
    path = tmp_path / "joint.yaml"
    path.write_text(text)
    return resolve(str(path), nest(overrides))


def refused(tmp_path: Path, text: str, **overrides: Any) -> str:
    with pytest.raises(InputError) as caught:
        joint(tmp_path, text, **overrides)
    return str(caught.value).removeprefix(f"{tmp_path / 'joint.yaml'}: ")


# joint spaces


def test_an_alternative_is_its_space_under_the_shared_settings_under_its_own(tmp_path: Path) -> None:
    sweep = joint(tmp_path, **{"optimizer.lr": 0.02})
    assert list(sweep.alternatives) == ["sat", "cas", "max3"]
    sat, cas, max3 = (one.trial for one in sweep.alternatives.values())
    assert [one.recipe().epochs for one in (sat, cas, max3)] == [3, 3, 3]
    assert [one.recipe().lr for one in (sat, cas, max3)] == [0.02] * 3
    assert cas.part("sampler")["w3"] == 0.25
    assert set(sweep.alternatives["cas"].search) == set(resolve("cas", {}).alternatives["cas"].search)
    assert (max3.method, max3.part("inner")["name"], max3.trained()) == ("max", "max", ("linf", "l2", "l1"))
    assert not sweep.alternatives["sat"].search


def test_what_the_command_line_sets_is_not_searched_in_any(tmp_path: Path) -> None:
    text = "dataset: digits\nmethods: [vir-at, vir-trades]\n"
    sweep = joint(tmp_path, text, **{"weighting.alpha": 5})
    for one in sweep.alternatives.values():
        assert one.trial.part("weighting")["alpha"] == 5
        assert "weighting.alpha" not in one.search
        assert one.search


def test_a_list_names_spaces(tmp_path: Path) -> None:
    sweep = joint(tmp_path, "dataset: digits\nmethods: [cas, trades]\n")
    for name, one in sweep.alternatives.items():
        assert one == resolve(name, {"dataset": "digits"}).alternatives[name]


def test_a_kept_sweep_comes_back(tmp_path: Path) -> None:
    sweep = joint(tmp_path)
    assert reload(json.loads(json.dumps(sweep.model_dump(mode="json")))) == sweep


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("methods: [casx]", "unknown search space 'casx': did you mean 'cas'? (your own: a path that ends in .yaml)"),
        ("methods: [sat, sat]", "methods: expected each once, got sat twice"),
        ("methods: []", "methods: expected at least one, got none"),
        ("methods: {sat: {seeds: [1]}}", "expected seeds beside methods, for all of them, got it under sat"),
        ("methods: {}", "expected methods to name spaces, or settings by name, got {}"),
        ("methods: [sat]\nmethod: cas", "expected no method beside methods, got 'cas'"),
        ("methods: {a: {space: compare}}", "expected a space of one method for a, got compare, a joint one"),
        (
            "dataset: digits\nmethods: {sat: {}, cas: {train_size: 9}}",
            "cas: train_size: all trials of a sweep share it, got 9 beside None",
        ),
        ("methods: {sat: {}, cas: {sampler.w1: -1}}", "cas: sampler.w1: expected w1 >= 0, got -1.0"),
        ("methods: {sat: {}, tarmac: {}}", "tarmac: method: unknown method 'tarmac': known: "),
    ],
)
def test_what_makes_no_joint_space_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, text).removeprefix(f"{tmp_path / 'joint.yaml'}: ").startswith(said)


def test_a_joint_study_begins_with_each_default_and_goes_on_as_undisturbed(tmp_path: Path) -> None:
    sweep = joint(tmp_path, trials=20)

    def value(params: dict[str, Any]) -> float:
        return {"sat": 0.1, "cas": 0.5, "max3": 0.2}[params["method"]] + params.get("sampler.w1", 0) / 100

    whole, history = searcher(sweep), []
    for number in range(20):
        history.append(whole.ask(number))
        whole.tell(number, "COMPLETE", [value(history[-1])])
    assert [params["method"] for params in history[:3]] == ["sat", "cas", "max3"]
    assert history[1] == {"method": "cas"} | sweep.alternatives["cas"].defaults()
    for params in history:
        assert set(params) == {"method", *sweep.alternatives[params["method"]].search}
        sweep.configure(params)
    again = searcher(sweep)
    for number, params in enumerate(history[:12]):
        again.replay(number, params)
        again.tell(number, "COMPLETE", [value(params)])
    assert [again.ask(12)] == history[12:13]
    chosen = [params["method"] for params in history[12:]]
    assert chosen.count("cas") > len(chosen) / 2, "the better method is proposed more often"


# grids


def test_a_grid_has_all_cells_the_last_address_changing_first(tmp_path: Path) -> None:
    sweep = joint(tmp_path, GRID)
    assert (sweep.trials, sweep.seeds) == (6, (3, 1))
    cells = [searcher(sweep).ask(number) for number in range(6)]
    assert [tuple(cell.values()) for cell in cells] == [(a, b) for a in (10, 2) for b in (0.0, 0.5, 1.0)]
    assert joint(tmp_path, GRID, trials=7).trials == 6
    assert joint(tmp_path, GRID, trials=2).trials == 2
    both = joint(tmp_path, "searcher: grid\nmethods: {sat: {}, cas: {search: {sampler.w1: {values: [1, 2]}}}}")
    assert [both.cell(number) for number in range(both.trials)] == [
        {"method": "sat"},
        {"method": "cas", "sampler.w1": 1},
        {"method": "cas", "sampler.w1": 2},
    ]


def test_fewer_trials_reach_fewer_alternatives(tmp_path: Path) -> None:
    text = "searcher: grid\nmethods: {cas: {search: {sampler.w1: {values: [1, 2]}}}, sat: {}, avg: {}}"
    assert [joint(tmp_path, text, trials=n).reached() for n in (2, 3, 9)] == [
        ["cas"],
        ["cas", "sat"],
        ["cas", "sat", "avg"],
    ]
    assert joint(tmp_path, trials=2).reached() == ["sat", "cas"]


def test_a_configuration_has_each_seed(tmp_path: Path) -> None:
    sweep = joint(tmp_path, GRID)
    trials = [sweep.configure({"sampler.w1": 2, "sampler.w3": 0.5}, seed) for seed in sweep.seeds]
    assert [trial.seed for trial in trials] == [3, 1]
    assert len({trial.key(init="i", fingerprint="f") for trial in trials}) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"search": {"sampler.w1": {"low": 1, "high": 2}}}, "search.sampler.w1: expected values, or a range with a st"),
        ({"seeds": [1, 1]}, "seeds: expected each once, got 1 twice"),
        ({"seeds": []}, "seeds: expected at least one, got none"),
        ({"test": "some"}, "test: expected 'best' or 'all', got 'some'"),
    ],
)
def test_what_makes_no_grid_is_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    assert refused(tmp_path, GRID, **more).startswith(said)


# a real sweep

REAL = """\
dataset: digits
attacks: [linf, l1, fog]
searcher: grid
seeds: [0, 1]
test: all
controls: true
optimizer.epochs: 3
methods:
  e-at-all: {}
  sat: {}
"""


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweeps]:
    made = Sweeps(tmp_path_factory.mktemp("joint"))
    yield made
    made.end()


@pytest.mark.ray
def test_seeds_and_controls_of_a_real_sweep(sweeps: Sweeps) -> None:
    """Two methods, two seeds; E-AT adapts, so each of its runs is replayed with its average probabilities."""
    (sweeps.folder / "real.yaml").write_text(REAL)
    code, _, err = sweeps.run("run", str(sweeps.folder / "real.yaml"), "--profile", "smoke", "--id", "r")
    assert code == 0, err
    store = sweeps.store("r")
    rows = store.trials().to_pylist()
    assert sorted((row["number"], row["method"], row["seed"], row["replay"]) for row in rows) == [
        (0, "e-at-all", 0, False),
        (0, "e-at-all", 0, True),
        (0, "e-at-all", 1, False),
        (0, "e-at-all", 1, True),
        (1, "sat", 0, False),
        (1, "sat", 1, False),
    ]
    for replay in (row for row in rows if row["replay"]):
        (of,) = (r for r in rows if (r["number"], r["seed"], r["replay"]) == (0, replay["seed"], False))
        offered = [json.loads(text) for text in probabilities(store, of["key"])]
        mean = {name: float(np.mean([one[name] for one in offered])) for name in offered[0]}
        for text in probabilities(store, replay["key"]):
            assert json.loads(text) == pytest.approx(mean)

    best = store.best()
    assert best is not None
    values = [[r["value"] for r in rows if r["number"] == number and not r["replay"]] for number in (0, 1)]
    assert best["value"] == pytest.approx(max(np.mean(one) for one in values))

    table = {row["method"]: row for row in tables.table(store, "test")}
    assert set(table) == {"pretrained", "e-at-all", "e-at-all (replay)", "sat"}
    results = [row for row in store.results().to_pylist() if row["split"] == "test" and row["method"] == "sat"]
    linf = [unpack(row["robust_bits"], row["n"]).mean() for row in results if row["attack"] == "linf"]
    assert table["sat"]["seeds"] == len(linf) == 2
    assert table["sat"]["linf"] == pytest.approx(np.mean(linf))
    assert table["pretrained"]["std"] is None

    code, _, err = sweeps.run("resume", "r")
    assert code == 0, err
    assert store.trials().to_pylist() == rows, "a finished sweep has nothing left to run"


def probabilities(store: Any, key: str) -> list[str]:
    return [row["probabilities"] for row in store.epochs().to_pylist() if row["trial"] == key]
