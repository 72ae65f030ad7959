"""The Pareto front, by hand and over the service's own sweep."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judgements import end, judge, sweep_of

from attacks.errors import InputError
from sweep.analysis.pareto import front
from sweep.bits import unpack
from sweep.store import Store

SPACE = "method: sat\ndataset: digits\nattacks: [linf, blur]\nsearch: {optimizer.lr: {low: 0.01, high: 1}}\n"
N = 200
WORST = ("worst attack", "union of all")


def bits(count: int) -> list[int]:
    """The first `count` of N images robust."""
    return [1] * count + [0] * (N - count)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Number -> clean, linf, blur of 200 images: 0 and 1 trade clean for robust; 2 lies a single image below 1, which
    a resample often leaves out; 3 lies far below both."""
    made = sweep_of(tmp_path, SPACE)
    for number, counts in enumerate([(180, 40, 60), (120, 100, 110), (120, 99, 110), (60, 30, 40)]):
        end(made, number, {"optimizer.lr": 0.1 + number / 10}, [0.5])
        judge(made, f"{number}-0", dict(zip(("clean", "linf", "blur"), map(bits, counts), strict=True)))
    return made


def test_a_front_worked_by_hand(store: Store) -> None:
    rows = {row["number"]: row for row in front(store)}
    assert list(rows) == [0, 1, 2, 3]
    assert [row["clean"] for row in rows.values()] == [0.9, 0.6, 0.6, 0.3]
    assert [row["average"] for row in rows.values()] == pytest.approx([50 / 200, 105 / 200, 104.5 / 200, 35 / 200])
    assert [row["on_front"] for row in rows.values()] == [True, True, False, False]
    assert [row["within_noise"] for row in rows.values()] == [False, False, True, False]
    assert [row["dominates"] for row in rows.values()] == ["3", "3", "3", ""]
    assert [row["dominated_by"] for row in rows.values()] == ["", "", "", "0, 1, 2"]
    assert rows[2]["settings"] == "optimizer.lr=0.30000000000000004"


def test_any_two_columns(store: Store) -> None:
    (first, *_) = front(store, x="linf", y="union(clean,blur)")
    assert (first["number"], first["linf"], first["union(clean,blur)"]) == (1, 0.5, 0.55)
    assert [row["number"] for row in front(store, x="linf", y="blur") if row["on_front"]] == [1]
    worst = {row["number"]: (row["worst attack"], row["union of all"]) for row in front(store, "val", *WORST)}
    assert worst == {0: (0.2, 0.2), 1: (0.5, 0.5), 2: (0.495, 0.495), 3: (0.15, 0.15)}


def test_equal_points_are_both_on_the_front(store: Store) -> None:
    end(store, 4, {"optimizer.lr": 0.9}, [0.5])
    judge(store, "4-0", {"clean": bits(180), "linf": bits(40), "blur": bits(60)})
    rows = {row["number"]: row for row in front(store)}
    assert rows[0]["on_front"]
    assert rows[4]["on_front"]
    assert rows[4]["dominates"] == "3"


def test_what_is_not_judged_is_left_out(store: Store) -> None:
    end(store, 4, {"optimizer.lr": 0.9}, [0.5])
    end(store, 5, {"optimizer.lr": 0.8}, [0.5], state="FAILED")
    assert [row["number"] for row in front(store)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": "clena"}, "unknown column 'clena': did you mean 'clean'?"),
        ({"x": "average"}, "expected two different columns for a front, got average twice"),
        ({"split": "test"}, "sweep s has no results on split 'test': it has val"),
    ],
)
def test_faults(store: Store, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as told:
        front(store, **arguments)
    assert str(told.value) == message


def test_different_budgets_are_refused(store: Store) -> None:
    end(store, 4, {"optimizer.lr": 0.9}, [0.5])
    judge(store, "4-0", {"clean": bits(9), "linf": bits(9), "blur": bits(9)}, budget_id="others")
    with pytest.raises(InputError, match="not comparable, different budgets: clean has 'digits', clean has 'others'"):
        front(store)


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_service_s_own_sweep(swept: Store, split: str) -> None:
    """Accuracies and front as numpy has them from the bits."""
    keys: dict[int, list[str]] = {}
    for trial in swept.trials().to_pylist():
        keys.setdefault(trial["number"], []).append(trial["key"])
    robust = {
        (row["trial"], row["attack"]): (row["family"], unpack(row["robust_bits"], row["n"]))
        for row in swept.results().to_pylist()
        if row["split"] == split
    }

    def mean(number: int, *families: str) -> float:
        each = [v.mean() for (key, _), (family, v) in robust.items() if family in families and key in keys[number]]
        return float(np.mean(each))

    points = {n: (mean(n, "clean"), (mean(n, "lp") + mean(n, "semantic", "perceptual")) / 2) for n in keys}
    best = {
        a for a in keys if not any(points[b] != points[a] and np.all(np.array(points[b]) >= points[a]) for b in keys)
    }
    rows = {row["number"]: row for row in front(swept, split)}
    assert {n: (row["clean"], row["average"]) for n, row in rows.items()} == {n: pytest.approx(points[n]) for n in keys}
    near = min(abs(points[a][k] - points[b][k]) for a, b in itertools.combinations(keys, 2) for k in (0, 1))
    assert near == 0 or near > 1e-9
    assert {number for number, row in rows.items() if row["on_front"]} == best
    for row in rows.values():
        dominated = [points[int(n)] for n in row["dominated_by"].split(", ") if n]
        assert all(np.all(np.array(other) >= points[row["number"]]) for other in dominated)
        assert row["within_noise"] == (not row["on_front"] and not dominated)
