from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.errors import InputError
from sweep.bits import pack
from sweep.intervals import wilson
from sweep.storage import Storage
from sweep.store import Store
from sweep.tables import averages, fractions, table

FAMILY = {"clean": "clean", "ppgd": "perceptual", "jpeg": "semantic"}  # and lp
NORMS = {"linf": "linf", "pgd-linf": "linf", "linf/square": "linf", "l2": "l2"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Storage(str(tmp_path)), "s")
    made.create({})
    return made


def put(
    store: Store, key: str, number: int | None, method: str, bits: dict[str, str], file: str = "", **changes: Any
) -> None:
    """Stores verdicts given as "1010", image by image; a second time beside the first where `file` is another."""
    rows = []
    for attack, text in bits.items():
        robust = [c == "1" for c in text]
        row = {"attack": attack, "family": FAMILY.get(attack, "lp"), "norm": NORMS.get(attack), "number": number}
        row |= {"method": method, "n": len(text)}
        row |= {"n_robust": sum(robust), "robust_accuracy": sum(robust) / len(text), "robust_bits": pack(robust)}
        row |= {"weights": "live", "epoch": 1, "split": "test", "images": "i", "protocol": "full", "conditional": False}
        rows.append(row | {"budget_id": None if attack == "clean" else "b", "epsilon": 0.1, "num_steps": 10} | changes)
    name = f"{changes.get('split', 'test')}-{changes.get('weights', 'live')}-{changes.get('epoch', 1)}"
    name += "-stages" if changes.get("conditional") else file
    store.write_results(key, name, rows)


BEFORE = {"jpeg": "1010", "clean": "1110", "linf": "1000", "l2": "1100"}
AFTER = {"jpeg": "0111", "clean": "1111", "linf": "1100", "l2": "1110"}


def test_a_table_by_hand(store: Store) -> None:
    put(store, "p", -1, "pretrained", BEFORE)
    put(store, "k", 3, "cas", AFTER)
    before, after = table(store, attacks=["linf", "jpeg"])
    names = ["number", "method", "weights", "seeds", "images", "clean", "linf", "l2", "jpeg"]
    names += ["avg_lp", "avg_semantic", "average"]
    assert list(before) == list(after)
    assert list(before)[: len(names)] == names
    assert [before[name] for name in names] == [
        -1,
        "pretrained",
        "live",
        1,
        4,
        0.75,
        0.25,
        0.5,
        0.5,
        0.375,
        0.5,
        0.4375,
    ]
    assert [after[name] for name in names] == [3, "cas", "live", 1, 4, 1.0, 0.5, 0.75, 0.75, 0.625, 0.75, 0.6875]
    assert (before["union(linf,jpeg)"], after["union(linf,jpeg)"]) == (0.25, 0.25)  # 1000 & 1010, 1100 & 0111
    assert before["gain"] is None
    assert after["gain"] == 0.25
    assert after["gain_low"] <= 0.25 <= after["gain_high"]
    assert after["average_low"] <= 0.6875 <= after["average_high"]
    assert fractions([after]) == set(after) - {"number", "method", "weights", "seeds", "images"}


def test_perceptual_counts_as_semantic(store: Store) -> None:
    put(store, "k", 0, "cas", {"linf": "1000", "ppgd": "1100", "jpeg": "1110"})
    assert table(store)[0]["avg_semantic"] == 0.625
    threats = {"linf": ("lp", "linf"), "ppgd": ("perceptual", "ppgd"), "jpeg": ("semantic", "jpeg")}
    assert averages({"linf": np.array(0.2), "ppgd": np.array(0.5), "jpeg": np.array(1.0)}, threats) == (
        0.2,
        0.75,
        pytest.approx(0.475),
    )


def test_a_norm_counts_once_with_what_survives_all_of_its_attacks(store: Store) -> None:
    """linf and pgd-linf together leave 1 of 4; beside l2's 3 of 4 that is 1/2, not the mean of three."""
    put(store, "k", 0, "cas", {"linf": "1100", "pgd-linf": "1010", "l2": "1110"})
    assert table(store)[0]["avg_lp"] == 0.5
    assert table(store)[0]["average"] == 0.5


def test_flags_of_doubtful_verdicts_are_shown(store: Store) -> None:
    put(store, "p", None, "pretrained", {"linf": "1100"})
    assert "flags" not in table(store)[0]
    put(store, "k", 0, "cas", {"linf": "1100", "jpeg": "1110"}, flags=["unconverged"])
    put(store, "p", None, "pretrained", {"linf": "1100", "jpeg": "1110"})
    assert [row["flags"] for row in table(store)] == ["", "unconverged (linf, jpeg)"]


def test_stages_of_an_attack_are_no_columns(store: Store) -> None:
    put(store, "k", 0, "cas", {"linf": "1100"})
    put(store, "k", 0, "cas", {"linf/square": "1110"}, conditional=True)
    assert store.results().num_rows == 2
    assert "linf/square" not in table(store)[0]
    assert table(store)[0]["average"] == 0.5


def test_an_average_without_one_family() -> None:
    threats = {"linf": ("lp", "linf"), "l2": ("lp", "l2")}
    assert averages({"linf": np.array(0.2), "l2": np.array(0.4)}, threats) == (
        pytest.approx(0.3),
        None,
        pytest.approx(0.3),
    )
    with pytest.raises(ValueError, match="expected an lp"):
        averages({}, threats)


def test_the_average_weighs_lp_by_the_number_of_the_others() -> None:
    """reference: the weighted mean with weight 6 on each of 3 lp attacks and 1 on each of 18 others."""
    values = np.random.default_rng(0).random(21)
    accuracies = dict(zip(map(str, range(21)), values, strict=True))
    threats = {name: ("lp" if int(name) < 3 else "semantic", name) for name in accuracies}
    weights = [6.0] * 3 + [1.0] * 18
    assert averages(accuracies, threats)[2] == pytest.approx(np.average(values, weights=weights))


def test_the_last_epoch_and_the_split_asked_for_count(store: Store) -> None:
    put(store, "k", 0, "cas", {"linf": "0000"}, epoch=1)
    put(store, "k", 0, "cas", {"linf": "1110"}, epoch=2)
    put(store, "k", 0, "cas", {"linf": "1111"}, epoch=3, split="val")
    put(store, "k", 0, "cas", {"linf": "1100"}, epoch=2, weights="averaged")
    assert [(row["weights"], row["linf"]) for row in table(store)] == [("live", 0.75), ("averaged", 0.5)]
    assert [row["linf"] for row in table(store, "val")] == [1.0]


def test_the_best_average_comes_first_after_the_pretrained(store: Store) -> None:
    put(store, "a", 0, "cas", {"linf": "1000"})
    put(store, "b", 1, "cas", {"linf": "1110"})
    put(store, "p", None, "pretrained", {"linf": "0000"})
    put(store, "p", None, "pretrained", {"linf": "0000"}, weights="averaged")
    assert [row["number"] for row in table(store)] == [None, None, 1, 0]


def test_seeds_are_averaged(store: Store) -> None:
    put(store, "p", -1, "pretrained", {"linf": "0000", "jpeg": "0000"})
    put(store, "a", 0, "cas", {"linf": "1000", "jpeg": "1111"}, seed=0)
    put(store, "b", 0, "cas", {"linf": "1110", "jpeg": "1111"}, seed=1)
    row = table(store, attacks=["linf", "jpeg"], intervals=True)[1]
    assert (row["seeds"], row["linf"], row["average"], row["gain"]) == (2, 0.5, 0.75, 0.75)
    assert row["union(linf,jpeg)"] == 0.5
    assert row["linf_low"] < 0.5 < row["linf_high"]


def test_the_spread_over_seeds_by_hand(store: Store) -> None:
    """Averages of 0.75 and 0.25: their standard deviation is sqrt(2 * 0.25^2)."""
    put(store, "p", None, "pretrained", {"linf": "1000", "jpeg": "1000"})
    put(store, "a", 0, "sat", {"linf": "1110", "jpeg": "1110"})
    put(store, "b", 0, "sat", {"linf": "1000", "jpeg": "1000"})
    before, after = table(store)
    assert before["std"] is None
    assert after["std"] == pytest.approx(0.125**0.5)


def ended(store: Store, number: int, key: str, **more: Any) -> None:
    row = {"number": number, "key": key, "method": "sat", "replay": False, "state": "COMPLETE", "value": 0.5}
    store.commit_trial(row | {"params": {"method": "sat", "optimizer.lr": 0.1 * number}} | more)


def test_equal_work_has_a_row_for_each_that_asked_for_it(store: Store) -> None:
    put(store, "k", 1, "sat", AFTER)
    ended(store, 1, "k")
    ended(store, 2, "k", method="cas", replay=True)
    assert [(row["number"], row["method"]) for row in table(store)] == [(1, "sat"), (2, "cas (replay)")]


def test_configurations_of_one_method_are_told_apart_by_their_settings(store: Store) -> None:
    for number in (1, 2):
        put(store, f"k{number}", number, "sat", AFTER)
        ended(store, number, f"k{number}")
    assert [row["settings"] for row in table(store)] == ["optimizer.lr=0.1", "optimizer.lr=0.2"]


def test_intervals_of_attacks_are_wilsons(store: Store) -> None:
    put(store, "k", 0, "cas", {"clean": "1111111100", "linf": "1100000000"})
    row = table(store, attacks=["linf"], intervals=True)[0]
    assert (row["clean_low"], row["clean_high"]) == wilson(8, 10)
    assert (row["union(linf)_low"], row["union(linf)_high"]) == wilson(2, 10)


def test_a_model_that_missed_an_attack_has_no_average(store: Store) -> None:
    put(store, "a", 0, "cas", {"linf": "1000", "jpeg": "1111"})
    put(store, "b", 1, "cas", {"linf": "1111"})
    rows = {row["number"]: row for row in table(store, attacks=["jpeg"])}
    assert rows[0]["average"] == 0.625
    assert (rows[1]["linf"], rows[1]["jpeg"], rows[1]["average"], rows[1]["union(jpeg)"]) == (1.0, None, None, None)


def test_survivors_do_not_enter_an_average(store: Store) -> None:
    put(store, "a", 0, "cas", {"linf": "1000"})
    store.write_results("a", "more", [store.results().to_pylist()[0] | {"attack": "square", "conditional": True}])
    row = table(store)[0]
    assert (row["square"], row["avg_lp"]) == (0.25, 0.25)
    with pytest.raises(InputError, match="square: it saw only the survivors"):
        table(store, attacks=["linf", "square"])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"images": "other"}, "images"),
        ({"protocol": "quick"}, "protocols"),
        ({"budget_id": "other"}, "budgets"),
        ({"epsilon": 0.2}, "epsilons"),
        ({"num_steps": 5}, "numbers of steps"),
    ],
)
def test_models_that_do_not_compare_are_refused(store: Store, change: dict[str, Any], what: str) -> None:
    put(store, "a", 0, "cas", AFTER)
    put(store, "b", 1, "cas", AFTER, **change)
    with pytest.raises(InputError, match=f"^not comparable, different {what}: "):
        table(store)


def test_attacks_on_different_images_make_no_average(store: Store) -> None:
    put(store, "a", 0, "cas", {"linf": "1000"})
    fewer = {"attack": "jpeg", "family": "semantic", "images": "fewer", "n": 2, "n_robust": 1}
    store.write_results("a", "more", [store.results().to_pylist()[0] | fewer | {"robust_bits": pack([1, 0])}])
    with pytest.raises(InputError, match="not comparable, different images: jpeg has 'fewer', linf has 'i'"):
        table(store)


def test_what_is_not_there_is_told(store: Store) -> None:
    with pytest.raises(InputError, match="sweep s has no results on split 'test': it has none"):
        table(store)
    put(store, "a", 0, "cas", AFTER)
    with pytest.raises(InputError, match="no results on split 'val': it has test"):
        table(store, "val")
    with pytest.raises(InputError, match=r"unknown attack 'linff': did you mean 'linf'\?"):
        table(store, attacks=["linff"])
    with pytest.raises(InputError, match="unknown sweep 't'"):
        table(Store(store.storage, "t"))
