"""What is comparable with a printed number, the tolerance, and what each reason is; on small stores made here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shells import Shell
from sweeps import planned

from sweep.bits import pack
from sweep.papers import comparison
from sweep.papers.cells import Cell, cells
from sweep.papers.measured import Measured
from sweep.storage import Storage
from sweep.store import Store

LIKE = {"dataset": "cifar10", "model": "preact-resnet-18-64", "init": "pretrain:linf"}
EPSILON = {"linf": 8 / 255, "l2": 0.5, "l1": 12}
ROBUST = {"clean": 858, "autoattack-linf": 400, "autoattack-l2": 680, "autoattack-l1": 500, "jpeg": 593}


def row(attack: str, n_robust: int, **changes: Any) -> dict[str, Any]:
    norm = attack.rpartition("-")[2]
    family = "clean" if attack == "clean" else "lp" if norm in EPSILON else "semantic"
    bits = [k < n_robust for k in range(1000)]
    found: dict[str, Any] = {"attack": attack, "family": family, "n": 1000, "n_robust": n_robust}
    found |= {"robust_bits": pack(bits), "epsilon": EPSILON.get(norm, 0.1), "num_steps": 100, "weights": "live"}
    found |= {"split": "test", "epoch": 1, "images": "i", "protocol": "full", "conditional": False, "flags": []}
    return found | {"budget_id": "cifar10", "norm": norm if norm in EPSILON else None, "seed": 0} | LIKE | changes


def store(folder: Any, name: str = "s", **changes: Any) -> Store:
    """A sweep of CAS+MDE from pretr_Linf on CIFAR-10 at the printed network's width."""
    made = Store(Storage(str(folder)), name)
    made.create(
        {"space": "s", **{key: changes.get(key, value) for key, value in LIKE.items()}, "spec": {}, "trials": 1}
    )
    judge(made, "k", 0, "cas+mde", ROBUST, **changes)
    return made


def judge(made: Store, key: str, number: int, method: str, robust: dict[str, int], **changes: Any) -> None:
    made.write_plan(number, planned(key, method))
    about = {"number": number, "method": method}
    made.write_results(key, "test-live", [row(name, n, **about, **changes) for name, n in robust.items()])
    made.commit_trial({"number": number, "key": key, "state": "COMPLETE", "value": 0.5, "params": {}, "method": method})


def found(*stores: Store, table: str = "6", split: str = "test") -> dict[tuple[str, str], Cell]:
    made = cells("cas-three-phase", table, Measured(stores, split))
    return {(cell.number.method, cell.number.metric): cell for cell in made}


def test_differences_by_hand(tmp_path: Any) -> None:
    """Printed for CAS+MDE: clean 85.8, linf 41, l2 68.1, l1 48.6, their mean 52.57."""
    made = found(store(tmp_path))
    assert {name: made["CAS+MDE", name].value for name in ("clean", "linf", "l2", "l1", "jpeg")} == {
        "clean": pytest.approx(85.8),
        "linf": pytest.approx(40),
        "l2": pytest.approx(68),
        "l1": pytest.approx(50),
        "jpeg": pytest.approx(59.3),
    }
    assert made["CAS+MDE", "linf"].difference == pytest.approx(-1.0)
    assert made["CAS+MDE", "avg_lp"].value == pytest.approx((40 + 68 + 50) / 3)
    assert made["CAS+MDE", "avg_lp"].difference == pytest.approx(158 / 3 - 52.57)
    comparable = [name for (_, name), cell in made.items() if cell.comparable]
    assert comparable == ["clean", "avg_lp", "linf", "l2", "l1"]
    assert made["CAS+MDE", "jpeg"].why_not == "the paper's semantic and perceptual budgets are unpublished"
    assert made["CAS+MDE", "avg_semantic"].value is None, "seventeen of its eighteen attacks are missing"
    assert made["CAS+MDE", "avg_robust"].value is None
    fill = made["CAS+MDE", "avg_semantic"].fill
    assert fill.startswith("python -m sweep evaluate s/0 ")
    assert fill.endswith(" --protocol full")
    assert "jpeg" not in fill
    assert "--attacks ppgd,wood," in fill
    assert made["SAT", "clean"].fill == "python -m sweep reproduce cas-three-phase --table 6"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "preact-resnet-18-16"}, "the network is preact-resnet-18-16, the paper's preact-resnet-18-64"),
        ({"init": "pretrain:l2"}, "the starting model is pretrain:l2 (l2), the paper's linf"),
        ({"init": "none"}, "the starting model is none (none), the paper's linf"),
        ({"dataset": "digits"}, "measured on digits, the paper on CIFAR-10"),
        ({"num_steps": 5}, "autoattack-linf of 5 steps, the standard one has 100"),
        ({"epsilon": 0.03}, "autoattack-linf at epsilon 0.03, the paper's is 0.03137"),
        ({"flags": ["non-finite"]}, "autoattack-linf is flagged: non-finite"),
    ],
)
def test_what_is_not_comparable_says_why(change: dict[str, Any], why: str, tmp_path: Any) -> None:
    cell = found(store(tmp_path, **change))["CAS+MDE", "linf"]
    assert (cell.value, cell.difference) == (pytest.approx(40), pytest.approx(-1))
    assert not cell.comparable
    assert cell.why_not == why


def test_another_attack_than_autoattack_is_shown_and_apart(tmp_path: Any) -> None:
    made = Store(Storage(str(tmp_path)), "s")
    made.create({"space": "s", **LIKE, "spec": {}, "trials": 1})
    judge(made, "k", 0, "cas+mde", {"clean": 858, "linf": 450}, protocol="quick")
    cell = found(made)["CAS+MDE", "linf"]
    assert cell.value == pytest.approx(45)
    assert cell.why_not == "by linf (quick): of the lp attacks only AutoAttack is compared"
    assert cell.fill.startswith("python -m sweep evaluate s/0 ")
    assert cell.fill.endswith(" --attacks linf --protocol autoattack")


def test_an_evaluation_fills_what_its_sweep_lacks(tmp_path: Any) -> None:
    made = Store(Storage(str(tmp_path)), "s")
    made.create({"space": "s", **LIKE, "spec": {}, "trials": 1})
    judge(made, "k", 0, "cas+mde", {"clean": 858, "linf": 450}, protocol="quick")
    judged = Store(made.storage, "e")
    judged.create({"kind": "evaluate", "space": "evaluate", **LIKE, "spec": {}, "trials": 0})
    judged.write_results("k", "test-live", [row("autoattack-linf", 400, number=0, method="cas+mde")])
    cell = found(made, judged)["CAS+MDE", "linf"]
    assert (cell.value, cell.comparable) == (pytest.approx(40), True)
    alone = found(judged)["CAS+MDE", "linf"]
    assert (alone.value, alone.comparable) == (pytest.approx(40), True)


def test_only_the_test_split_is_compared(tmp_path: Any) -> None:
    cell = found(store(tmp_path, split="val"), split="val")["CAS+MDE", "linf"]
    assert cell.why_not == "on the val split"


def test_a_row_is_filled_from_its_own_starting_model_and_data_set(tmp_path: Any) -> None:
    """Of two sweeps the right one counts; of pre-trained models only the very one."""
    other = store(tmp_path, "l2", init="pretrain:l2")
    other.write_results("p2", "test-live", [row("clean", 700, method="pretrained", init="pretrain:l2")])
    ours = store(tmp_path, "linf")
    ours.write_results("p", "test-live", [row("clean", 830, method="pretrained")])
    assert found(other, ours)["CAS+MDE", "clean"].comparable
    made = found(other, ours, table="9")
    values = {method: made[method, "clean"].value for method in ("pretr_Linf", "pretr_L2", "pretr_L1")}
    assert values == {"pretr_Linf": pytest.approx(83), "pretr_L2": pytest.approx(70), "pretr_L1": None}
    assert found(other, table="8")["CAS+MDE", "clean"].value is not None, "CIFAR-10 stands in for CIFAR-100"
    digits = store(tmp_path, "digits", dataset="digits")
    assert found(digits, ours)["CAS+MDE", "clean"].comparable


@pytest.mark.parametrize(
    ("init", "kind"),
    [("pretrain:l1", "l1"), ("models/pretr_Linf.pth", "linf"), ("robustbench:Wang2023Better_WRN-28-10", None)],
)
def test_kinds_of_starting_models(init: str, kind: str | None) -> None:
    assert comparison.start(init) == (kind or init)


def test_seeds_by_hand(tmp_path: Any) -> None:
    """85.8 and 83.8: mean 84.8, standard deviation sqrt(2)."""
    made = store(tmp_path)
    made.write_plan(
        0, {**planned("k", "cas+mde"), "runs": [{"key": k, "seed": 0, "replay": None} for k in ("k", "k2")]}
    )
    made.write_results("k2", "test-live", [row("clean", 838, number=0, method="cas+mde")])
    made.commit_trial({"number": 0, "key": "k2", "state": "COMPLETE", "value": 0.5, "params": {}, "method": "cas+mde"})
    made = found(made)["CAS+MDE", "clean"]
    assert (made.value, made.std, made.seeds, made.n) == (pytest.approx(84.8), pytest.approx(2**0.5), 2, 1000)


def test_a_union_is_exact(tmp_path: Any) -> None:
    """aa_all of adaptive-budget: images 0..399, 0..679 and 0..499 withstand; all three, 0..399."""
    made = Store(Storage(str(tmp_path)), "s")
    made.create({"space": "s", **LIKE, "init": "none", "spec": {}, "trials": 1})
    changes = {"init": "none"}
    judge(made, "k", 0, "max-scratch", ROBUST, **changes)
    every = cells("adaptive-budget", "2", Measured((made,)))
    cell = next(cell for cell in every if (cell.number.row, cell.number.metric) == ("MAX", "aa_all"))
    assert cell.value == pytest.approx(40)
    assert cell.why_not == "autoattack-linf at epsilon 0.03137, the paper's is 0.03"
    made.write_results("k", "test-live", [row("autoattack-l1", 500, number=0, method="max-scratch", images="other")])
    judged = Measured((made,))
    every = cells("adaptive-budget", "2", judged)
    assert next(c for c in every if (c.number.row, c.number.metric) == ("MAX", "aa_all")).value is None


def test_a_difference_outside_the_tolerance_is_exit_code_4(sweep: Shell) -> None:
    made = store(sweep.results)
    where = ["table", "s", "--paper", "cas-three-phase", "--table", "6"]
    assert made.sweep_id == "s"
    inside = sweep(*where, "--tolerance", "2")
    assert (inside.code, inside.err) == (0, "5 cells compared, 0 outside 2 points\n")
    outside = sweep(*where, "--tolerance", "0.5")
    assert outside.code == 4
    assert outside.err.splitlines() == [
        "5 cells compared, 2 outside 0.5 points",
        "  CIFAR-10, CAS+MDE, linf: 40.00 | 41 (-1.00)",
        "  CIFAR-10, CAS+MDE, l1: 50.00 | 48.6 (+1.40)",
    ]
    assert "40.00 | 41 (-1.00) !" in outside.out
    told = json.loads(sweep(*where, "--tolerance", "0.5", "--format", "json").out)
    assert sum(one["comparable"] for one in told) == 5
    assert "--tolerance only with both" in sweep.refused("table", "s", "--tolerance", "2")
