"""The papers' figures that are data, by worked examples."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sweeps import planned

from sweep.bits import pack, pack_classes
from sweep.papers import figures, layouts
from sweep.papers.cells import cells
from sweep.papers.measured import Measured
from sweep.storage import Storage
from sweep.store import Store
from trainers.domination import streaks

PLAYERS = ("pgd-l1", "pgd-l2", "pgd-linf")


def made(folder: Any, name: str = "s", **document: Any) -> Store:
    store = Store(Storage(str(folder)), name)
    about = {"space": "s", "dataset": "cifar10", "model": "resnet-18-64", "init": "none", "spec": {}, "trials": 1}
    store.create(about | document)
    return store


def trained(store: Store, key: str, method: str, epochs: list[dict[str, Any]], number: int = 0) -> None:
    store.write_plan(number, planned(key, method))
    store.write_epochs(key, [{"number": number, "epoch": k + 1, **one} for k, one in enumerate(epochs)])
    store.commit_trial(
        {"number": number, "key": key, "state": "COMPLETE", "value": 0.5, "params": {}, "method": method}
    )


def judged(attack: str, robust: list[int], **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"attack": attack, "n": len(robust), "n_robust": sum(robust), "robust_bits": pack(robust)}
    row |= {"family": "lp", "split": "test", "weights": "live", "epoch": 1, "conditional": False, "images": "i"}
    return row | {"protocol": "full", "flags": [], "method": "m", "number": 0, "epsilon": 0.1, "num_steps": 9} | more


def leading(*epochs: str) -> list[dict[str, Any]]:
    """Epochs whose batches these players led, a letter each: 1, 2, i."""
    names = {"1": "pgd-l1", "2": "pgd-l2", "i": "pgd-linf"}
    return [{"domination": json.dumps(streaks(PLAYERS, [names[c] for c in text]))} for text in epochs]


def test_table_5_is_of_the_streaks(tmp_path: Any) -> None:
    store = made(tmp_path, dataset="mnist", model="mnist-cnn-32")
    trained(store, "k", "max-scratch", leading("112", "2ii"))
    found = cells("adaptive-budget", "5", Measured((store,)))
    row = {cell.number.metric: cell.value for cell in found if cell.number.row == "MAX"}
    assert row == {"streak_l1": 2, "streak_l2": 2, "streak_linf": 2, "streak_avg": 2}
    assert {cell.number.row for cell in found if cell.value is not None} == {"MAX"}
    trained(store, "k", "max-scratch", [{"domination": None}, *leading("112")])
    assert not [c for c in cells("adaptive-budget", "5", Measured((store,))) if c.value is not None], "never invented"


def test_confusions_by_hand(tmp_path: Any) -> None:
    """Two classes; true 0 0 0 1 1, taken for 0 1 1 1 none under attack: 1/3 and 2/3 of class 0, all of class 1 that was
    any class."""
    store = made(tmp_path)
    trained(store, "k", "at", [{}])
    labels, taken = [0, 0, 0, 1, 1], [0, 1, 1, 1]
    clean = judged("clean", [1, 1, 1, 1, 1], labels=pack_classes(labels), predicted=pack_classes(labels))
    attacked = judged("pgd-100", [1, 0, 0, 1, 1], predicted=pack_classes([*taken, 1]))
    store.write_results("k", "test-live", [clean, attacked])
    rows, notes = figures.rows("vir", "figure-1", Measured((store,)))
    assert [(row["method"], row["attack"], row["true class"]) for row in rows] == [
        ("AT", "clean", 0),
        ("AT", "clean", 1),
        ("AT", "pgd-100", 0),
        ("AT", "pgd-100", 1),
    ]
    assert (rows[0]["0"], rows[0]["1"], rows[1]["1"]) == (100, 0, 100)
    assert (rows[2]["0"], rows[2]["1"]) == (pytest.approx(100 / 3), pytest.approx(200 / 3))
    assert notes[-1] == "missing: TRADES; MART; python -m sweep reproduce vir --table figure-1"


def test_class_weights_by_hand(tmp_path: Any) -> None:
    store = made(tmp_path)
    trained(store, "k", "vir-at", [{"class_weights": {"0": 0.5, "10": 3.0, "2": 2.0}}, {"class_weights": None}])
    rows, _ = figures.rows("vir", "figure-3", Measured((store,)))
    assert rows == [{"method": "VIR-AT", "epoch": 1, "0": 0.5, "2": 2.0, "10": 3.0, "seeds": 1}]
    assert list(rows[0]) == ["method", "epoch", "0", "2", "10", "seeds"]


def test_curves_over_epochs(tmp_path: Any) -> None:
    """Of validation images where each epoch was judged; else of training, whose average is of both families."""
    store = made(tmp_path, model="preact-resnet-18-64")
    trained(store, "k", "sat", [{"robust": {"linf": 0.2, "l1": 0.4, "fog": 0.5}}, {"robust": {"fog": 0.7}}])
    rows, notes = figures.rows("cas-bandit", "figure-7", Measured((store,)))
    assert [row["avg_robust"] for row in rows] == [pytest.approx(100 * (0.3 + 0.5) / 2), pytest.approx(70)]
    assert {row["source"] for row in rows} == {figures.TRAINING}
    assert [row["clean"] for row in rows] == [None, None]
    assert "missing: E-AT; Order; AVG; CAS (ours)" in notes[-1]
    layout = layouts.paper("cas-bandit").metrics
    names = ["linf", "l2", "l1", *layout["avg_semantic"].mean]
    for epoch, robust in ((1, [1, 0, 0, 0]), (2, [1, 1, 0, 0])):
        of_epoch = {"split": "val", "epoch": epoch, "method": "sat"}
        verdicts = [judged(name, robust, **of_epoch) for name in names]
        store.write_results("k", f"val-{epoch}", [judged("clean", [1, 1, 1, 0], **of_epoch), *verdicts])
    rows, _ = figures.rows("cas-bandit", "figure-7", Measured((store,)))
    assert [(row["epoch"], row["clean"], row["avg_robust"]) for row in rows] == [(1, 75, 25), (2, 75, 50)]
    assert {row["source"] for row in rows} == {figures.VALIDATION}


def test_curves_over_epsilon(tmp_path: Any) -> None:
    store = made(tmp_path, model="preact-resnet-18-64")
    trained(store, "k", "avg-scratch+ab-l2", [{}])
    for name, epsilon, robust in (("a", 0.06, [1, 0, 0, 0]), ("b", 0.03, [1, 1, 0, 0])):
        other = made(tmp_path, name, kind="evaluate", spec={"scale": epsilon / 0.03})
        other.write_results("k", "test-live", [judged("autoattack-linf", robust, epsilon=epsilon)])
    measured = Measured((store, Store(store.storage, "a"), Store(store.storage, "b")))
    rows, _ = figures.rows("adaptive-budget", "figure-6", measured)
    assert [(row["method"], row["attack"], row["epsilon"], row["robust"]) for row in rows] == [
        ("AVG, AdaptiveBudget norm l2", "autoattack-linf", 0.03, 50),
        ("AVG, AdaptiveBudget norm l2", "autoattack-linf", 0.06, 25),
    ]
    found = cells("adaptive-budget", "2", measured)
    row = {cell.number.metric: cell.value for cell in found if cell.number.row == "AVG, AdaptiveBudget norm l2"}
    assert row["aa_linf"] == 50, "scaled budgets fill no table"


def test_a_matrix_beside_the_printed_one(tmp_path: Any) -> None:
    """Figure 5 prints 0.002 for linf on linf and -0.009 for it on l1; a sum needs all of its eleven cells."""
    store = made(tmp_path, kind="tradeoff", model="preact-resnet-18-64", init="pretrain:linf")
    names = ["linf", "l2", "l1", "wood", "elastic", "pixel", "snow", "gabor", "jpeg", "blur", "fog"]
    effects = {(a, b): 0.01 * i - 0.001 * j for i, a in enumerate(names) for j, b in enumerate(names)}
    rows = [{"trained_on": a, "attack": b, "effect": e} for (a, b), e in effects.items()]
    store.write_tradeoff(rows)
    found = {
        (cell.number.variant.removeprefix("trained_on="), cell.number.metric): cell
        for cell in cells("cas-three-phase", "figure-5", Measured((store,)))
    }
    assert len(found) == 143
    assert (found["linf", "linf"].number.value, found["linf", "l1"].number.value) == (0.002, -0.009)
    assert found["l1", "l1"].value == pytest.approx(0.018)
    assert found["l1", "l1"].difference == pytest.approx(0.018 - 0.026)
    assert found["l1", "row_sum_printed"].value == pytest.approx(11 * 0.02 - 0.055)
    assert found["sum", "l1"].value == pytest.approx(0.55 - 11 * 0.002)
    assert not any(cell.comparable for cell in found.values())
    store.write_tradeoff(rows[:-1])
    found = {
        (cell.number.variant.removeprefix("trained_on="), cell.number.metric): cell
        for cell in cells("cas-three-phase", "figure-5", Measured((store,)))
    }
    lacking = {(a, b) for (a, b), cell in found.items() if cell.value is None}
    assert lacking == {("fog", "fog"), ("fog", "row_sum_printed"), ("sum", "fog")}


def test_a_matrix_that_is_printed_as_an_image_has_the_attacks_of_the_measured_one(tmp_path: Any) -> None:
    store = made(tmp_path, kind="tradeoff", dataset="digits")
    store.write_tradeoff(
        [{"trained_on": a, "attack": b, "effect": 0.5} for a in ("linf", "fog") for b in ("linf", "fog")]
    )
    found = cells("cas-bandit", "figure-3", Measured((store,)))
    assert [cell.value for cell in found] == [0.5, 0.5, 1.0, 0.5, 0.5, 1.0, 1.0, 1.0, 2.0]
    assert all(cell.difference is None for cell in found)


@pytest.mark.parametrize(
    ("paper", "table"),
    [
        (paper, table)
        for paper in layouts.papers()
        for table, chosen in layouts.paper(paper).tables.items()
        if not chosen.refused and chosen.kind not in ("cells", "matrix")
    ],
)
def test_a_figure_says_what_the_sweep_lacks(paper: str, table: str, swept: Store) -> None:
    rows, notes = figures.rows(paper, table, Measured((swept,)))
    methods = (layouts.layout(paper, table).unprinted or layouts.Unprinted()).methods
    drawn = {row["method"] for row in rows}
    assert drawn <= set(methods)
    assert drawn == ({"E-AT", "SAT"} if paper == "cas-bandit" else set())
    assert all(name in notes[-1] for name in set(methods) - drawn)
    assert notes[-1].endswith(f"python -m sweep reproduce {paper} --table {table}")


def test_the_svm_of_figures_3_to_5(tmp_path: Any) -> None:
    store = made(tmp_path, kind="experiment", space="papers/adaptive-budget-svm")
    trained(store, "a", "figure 3a", [{"train_loss": 3.0, "flips": 990}, {"train_loss": 3.5, "flips": 998}])
    trained(store, "b", "figure 4a", [{"train_loss": 1.0, "flips": 0}], number=1)
    rows, notes = figures.rows("adaptive-budget", "figure-3", Measured((store,)))
    assert rows == [
        {"method": "figure 3a", "step": 1, "loss": 3.0, "flips": 990},
        {"method": "figure 3a", "step": 2, "loss": 3.5, "flips": 998},
    ]
    assert "missing: figure 3b" in notes[-1]
