"""Two trials beside each other, by hand and over the service's own sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judgements import end, judge, sweep_of

from attacks.errors import InputError
from sweep.analysis.difference import difference
from sweep.analysis.reference import find
from sweep.bits import unpack
from sweep.store import Store

SPACE = "method: sat\ndataset: digits\nattacks: [linf, blur, fog]\nsearch: {optimizer.lr: {low: 0.01, high: 1}}\n"
N = 100
TOGETHER = ("avg_lp", "avg_semantic", "average", "union of all", "worst attack")


def bits(count: int) -> list[int]:
    return [1] * count + [0] * (N - count)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = sweep_of(tmp_path, SPACE)
    for number, counts in enumerate([(80, 40, 50, 20), (80, 60, 48, 20)]):
        end(made, number, {"optimizer.lr": 0.1 + number / 10}, [0.5], revision=f"r{number}", host="h", device="cpu")
        judge(made, f"{number}-0", dict(zip(("clean", "linf", "blur", "fog"), map(bits, counts), strict=True)))
    return made


def differ(store: Store, a: str = "s/0", b: str = "s/1", **more: Any) -> dict[str, Any]:
    return difference(find(a, store.storage), find(b, store.storage), **more)


def test_a_difference_worked_by_hand(store: Store) -> None:
    told = differ(store)
    assert (told["A"], told["B"]) == ("s/0", "s/1")
    assert told["settings"] == [{"address": "optimizer.lr", "A": 0.1, "B": 0.2}]
    assert told["environment"] == [{"what": "revision", "A": "r0", "B": "r1"}]
    rows = {row["attack"]: row for row in told["accuracies"]}
    assert list(rows) == ["clean", "linf", "blur", "fog", *TOGETHER]
    assert [(row["A"], row["B"]) for row in rows.values()] == [
        (0.8, 0.8), (0.4, 0.6), (0.5, 0.48), (0.2, 0.2),
        (0.4, 0.6), (0.35, 0.34), pytest.approx((0.375, 0.47)), (0.2, 0.2), (0.2, 0.2)
    ]  # fmt: skip
    assert rows["average"]["difference"] == pytest.approx(0.095)
    assert [row["significant"] for row in rows.values()] == [False, True, False, False, True, False, True, False, False]
    assert {row["note"] for row in rows.values()} == {""}


def test_the_interval_is_that_of_the_paired_difference(store: Store) -> None:
    """20 images of 100 gained and none lost: a binomial share, 0.2 +- 1.96 * 0.04; blur lost 2: 0 to 0.05 in a tail."""
    rows = {row["attack"]: row for row in differ(store)["accuracies"]}
    assert (rows["linf"]["low"], rows["linf"]["high"]) == pytest.approx((0.2 - 0.0784, 0.2 + 0.0784), abs=0.012)
    assert rows["blur"]["low"] == pytest.approx(-0.05, abs=0.011)
    assert rows["blur"]["high"] == 0.0
    assert (rows["clean"]["low"], rows["clean"]["high"]) == (0.0, 0.0)


def test_only_what_changed(store: Store) -> None:
    rows = differ(store, only_changed=True)["accuracies"]
    assert [row["attack"] for row in rows] == ["linf", "blur", "avg_lp", "avg_semantic", "average"]


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"budget_id": "others"}, "different budgets: {} has 'digits', {} has 'others'"),
        ({"images": "others"}, "different images: fog has 'val', fog has 'others'"),
        ({"protocol": "full"}, "different protocols: {} has 'quick', {} has 'full'"),
        ({"num_steps": 3}, "different numbers of steps: {} has 10, {} has 3"),
    ],
)
def test_what_is_not_comparable_has_no_interval(store: Store, more: dict[str, Any], note: str) -> None:
    end(store, 2, {"optimizer.lr": 0.1}, [0.5])
    judge(store, "2-0", {"clean": bits(70), "linf": bits(70), "blur": bits(70), "fog": bits(70)}, **more)
    told = differ(store, b="s/2")
    assert told["settings"] == []
    for row in told["accuracies"]:
        attack = "clean" if row["attack"] in TOGETHER else row["attack"]
        assert row["note"] == note.format(attack, attack)
        assert (row["significant"], row["low"], row["high"]) == (None, None, None)
        assert row["difference"] == pytest.approx(0.7 - row["A"])


def test_an_attack_that_one_did_not_meet(store: Store) -> None:
    end(store, 2, {"optimizer.lr": 0.1}, [0.5])
    judge(store, "2-0", {"clean": bits(70), "linf": bits(70)})
    rows = {row["attack"]: row for row in differ(store, b="s/2")["accuracies"]}
    assert rows["fog"] == dict.fromkeys(rows["fog"]) | {"attack": "fog", "A": 0.2, "note": "B did not meet it"}
    assert rows["linf"]["note"] == ""
    assert rows["linf"]["significant"]
    assert {rows[name]["note"] for name in TOGETHER} == {"different attacks"}


def test_attacks_of_one_family_alone(store: Store) -> None:
    for number in (2, 3):
        end(store, number, {"optimizer.lr": 0.1}, [0.5])
        judge(store, f"{number}-0", {"clean": bits(70), "linf": bits(70)})
    rows = differ(store, "s/2", "s/3")["accuracies"]
    assert [row["attack"] for row in rows] == ["clean", "linf", "avg_lp", "average", "union of all", "worst attack"]


def test_two_sweeps_are_their_best(store: Store, tmp_path: Path) -> None:
    other = sweep_of(tmp_path, SPACE, "t", **{"optimizer.momentum": 0.5})
    end(other, 0, {"optimizer.lr": 0.1}, [0.5])
    judge(other, "0-0", {"clean": bits(70)})
    told = differ(store, "s", "t")
    assert (told["A"], told["B"]) == ("s/0", "t/0")
    assert [row["address"] for row in told["settings"]] == ["optimizer.momentum"]


def test_the_starting_model_has_no_settings(store: Store) -> None:
    judge(store, "p", {"clean": bits(90), "linf": bits(1)}, method="pretrained")
    told = differ(store, "s/pretrained", "s/0")
    assert told["settings"] is None
    assert [(row["A"], row["B"]) for row in told["accuracies"]][:2] == [(0.9, 0.8), (0.01, 0.4)]


def test_faults(store: Store) -> None:
    def refused(*texts: str, **more: Any) -> str:
        with pytest.raises(InputError) as told:
            differ(store, *texts, **more)
        return str(told.value)

    end(store, 2, {"optimizer.lr": 0.3}, [0.9], state="FAILED")
    assert refused("s/0", "s/best") == "expected two different trials, got s/0 twice"
    assert refused("s/0", "s/2") == "s/2 is FAILED: only a COMPLETE trial has accuracies to compare"
    assert refused(split="test") == "sweep s has no results on split 'test': it has val"
    judge(store, "1-0", {"clean": bits(9)}, split="test")
    assert refused(split="test") == "s/0 was not judged on split 'test'"


def test_the_service_s_own_sweep(swept: Store) -> None:
    """Accuracies as numpy has them from the bits, and intervals as a bootstrap written out here has them."""
    found: dict[tuple[int, str], list[Any]] = {}
    for row in swept.results().to_pylist():
        if row["split"] == "test" and row["number"] in (1, 2):
            found.setdefault((row["number"], row["attack"]), []).append(unpack(row["robust_bits"], row["n"]))
    rows = differ(swept, "fixture/1", "fixture/2", split="test")["accuracies"]
    assert [row["attack"] for row in rows[22:]] == list(TOGETHER)
    rng = np.random.default_rng(5)
    for row in rows[:22]:
        a, b = (np.asarray(found[number, row["attack"]], float) for number in (1, 2))
        assert (row["A"], row["B"]) == pytest.approx((a.mean(), b.mean()))
        assert row["difference"] == pytest.approx(b.mean() - a.mean())
        drawn = []
        for _ in range(400):
            images, first, second = rng.integers(0, a.shape[1], a.shape[1]), *rng.integers(0, 3, (2, 3))
            drawn.append(b[second][:, images].mean() - a[first][:, images].mean())
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.045)
