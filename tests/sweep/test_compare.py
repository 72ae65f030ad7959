"""Tables of several sweeps, marks, worst cases and ratios. Values are recomputed from the stored bits with numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tables import AFTER, BEFORE, ended, put

from attacks.errors import InputError
from sweep.intervals import Draws, holding_zero, percentiles
from sweep.layers import resolve
from sweep.render.sheet import BEST, TIED
from sweep.settings import nest
from sweep.storage import Storage
from sweep.store import Store
from sweep.tables import Extras, compare, table
from sweep.tables.cells import Cast
from sweep.tables.columns import Columns
from sweep.tables.models import Model
from sweep.tables.robustbench import entries


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def new(storage: Storage, sweep_id: str = "s", **document: Any) -> Store:
    made = Store(storage, sweep_id)
    made.create(document)
    return made


def verdicts(store: Store, split: str = "test") -> dict[tuple[Any, str], dict[str, dict[str, np.ndarray]]]:
    """(number, weights) -> run -> attack -> bits, of the last epoch: read row by row, without the code under test."""
    found: dict[Any, Any] = {}
    for row in sorted(store.results().to_pylist(), key=lambda row: row["epoch"] or 0):
        if row["split"] == split and not row["conditional"] and "/" not in row["attack"]:
            bits = np.unpackbits(np.frombuffer(row["robust_bits"], np.uint8))[: row["n"]].astype(float)
            run = found.setdefault((row["number"], row["weights"]), {}).setdefault(row["trial"], {})
            run[row["attack"]] = bits
    return found


def expected(runs: dict[str, dict[str, np.ndarray]], families: dict[str, str]) -> dict[str, float]:
    """Every accuracy of a configuration, each attack having its own norm."""
    names = [name for name in families if name != "clean"]
    lp = [name for name in names if families[name] == "lp"]
    others = [name for name in names if families[name] != "lp"]
    each = {name: [run[name].mean() for run in runs.values()] for name in families}
    values = {name: float(np.mean(held)) for name, held in each.items()}
    parts = [[np.mean([run[name].mean() for name in part]) for run in runs.values()] for part in (lp, others)]
    values |= {"avg_lp": float(np.mean(parts[0])), "avg_semantic": float(np.mean(parts[1]))}
    averages = np.mean(parts, axis=0)
    values |= {"average": float(averages.mean()), "std": float(averages.std(ddof=1)) if len(averages) > 1 else np.nan}
    values["union of all"] = float(np.mean([np.all([run[name] for name in names], axis=0) for run in runs.values()]))
    values["union(linf,l2,l1)"] = float(np.mean([run["linf"] * run["l2"] * run["l1"] for run in runs.values()]))
    values["worst attack"] = min(values[name] for name in names)
    values["linf_std"] = float(np.std(each["linf"], ddof=1)) if len(runs) > 1 else np.nan
    return values


def test_every_value_of_a_real_sweep_is_that_of_its_bits(swept: Store) -> None:
    found = compare([swept], unions=[["linf", "l2", "l1"], ["jpeg"]], extras=Extras(intervals=True, spread=True))
    families = {row["attack"]: row["family"] for row in swept.results().to_pylist() if "/" not in row["attack"]}
    held = verdicts(swept)
    assert len(families) == 22
    assert len(found.rows) > 5
    for row in found.rows:
        runs = held[row["number"], row["weights"]]
        assert (row["seeds"], row["images"]) == (len(runs), len(next(iter(runs.values()))["linf"]))
        for column, value in expected(runs, families).items():
            assert (np.nan if row[column] is None else row[column]) == pytest.approx(value, nan_ok=True), column
        assert row["union(jpeg)"] == row["jpeg"]
        for column in set(families) | {"avg_lp", "average", "union of all", "worst attack"}:
            assert row[f"{column}_low"] - 1e-9 <= row[column] <= row[f"{column}_high"] + 1e-9
    assert found.rows[1]["gain"] == pytest.approx(found.rows[1]["average"] - found.rows[0]["average"])


def test_the_best_and_the_ties_of_a_real_sweep(swept: Store) -> None:
    found = compare([swept])
    assert found.marks is not None
    columns = {name for marks in found.marks for name in marks}
    assert columns >= {"clean", "linf", "jpeg", "avg_lp", "average", "worst attack"}
    assert not columns & {"std", "gain", "average_low", "seeds"}
    for column in columns:
        values = [row[column] for row in found.rows]
        kinds = [marks.get(column) for marks in found.marks]
        assert [kind == BEST for kind in kinds] == [value == pytest.approx(max(values)) for value in values]


MODELS = st.integers(1, 12).flatmap(
    lambda n: st.lists(
        st.lists(st.lists(st.sampled_from("01"), min_size=n, max_size=n), min_size=1, max_size=3),
        min_size=2,
        max_size=4,
    )
)


def model(number: int, runs: list[list[str]]) -> Model:
    about = {"attack": "linf", "family": "lp", "norm": "linf", "conditional": False, "dataset": "digits"}
    rows = [about | {"n": len(run), "robust": np.asarray([bit == "1" for bit in run])} for run in runs]
    return Model("s", number, f"m{number}", "live", [{"linf": row} for row in rows])


@settings(deadline=None)
@given(MODELS)
def test_no_row_beats_the_best_and_a_tie_is_one_by_the_paired_test(drawn: list[list[list[str]]]) -> None:
    models = [model(number, runs) for number, runs in enumerate(drawn)]
    cast = Cast(Columns.of(models, [], None, None), models, Extras(resamples=100))
    scores = [np.asarray([[bit == "1" for bit in run] for run in runs], float) for runs in drawn]
    values = [held.mean() for held in scores]
    first = values.index(max(values))
    draws = Draws.of(len(drawn[0][0]), [len(runs) for runs in drawn], 100)
    means = [draws.means(k, held[None])[0] for k, held in enumerate(scores)]
    for k, value in enumerate(values):
        kind = cast.row(k)[1].get("linf")
        low, high = np.quantile(means[first] - means[k], [0.025, 0.975])
        best = value == pytest.approx(max(values))
        expected = None if max(values) == pytest.approx(min(values)) else BEST if best else TIED
        assert kind == (expected if best or low <= 1e-9 <= high + 2e-9 else None)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=50), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_tie_is_symmetric_and_says_what_the_interval_says(differences: list[float], level: float) -> None:
    held = np.asarray([differences])
    low, high = percentiles(held[0], level)
    assert holding_zero(held, level)[0] == holding_zero(-held, level)[0]
    if min(abs(low), abs(high)) > 1e-6:
        assert holding_zero(held, level)[0] == (low < 0 < high)


def test_a_resample_is_drawn_once_for_all() -> None:
    """Image by image and seed by seed, in place of the matrix product."""
    drawn = Draws.of(5, [3, 1], resamples=7)
    scores = np.random.default_rng(0).random((2, 3, 5))
    means = drawn.means(0, scores)
    for r in range(7):
        images = np.repeat(np.arange(5), drawn.images[r])
        seeds = np.repeat(np.arange(3), drawn.seeds[0][r])
        assert (len(images), len(seeds)) == (5, 3)
        assert means[:, r] == pytest.approx(scores[:, seeds][:, :, images].mean((1, 2)))


def test_a_tie_by_hand(storage: Storage) -> None:
    """20 images: one image's difference may be chance, half of them not."""
    store = new(storage)
    for number, held in enumerate((20, 19, 10)):
        put(store, f"k{number}", number, f"m{number}", {"linf": "1" * held + "0" * (20 - held)})
    found = compare([store])
    assert [marks.get("linf") for marks in found.marks or ()] == [BEST, TIED, None]
    assert "95 % interval of the paired difference" in found.notes[0]


def test_nothing_is_marked_where_all_are_equal(storage: Storage) -> None:
    store = new(storage)
    for number in (0, 1):
        put(store, f"k{number}", number, "cas", {"linf": "10"})
    assert compare([store]).marks == [{}, {}]
    assert compare([store], extras=Extras(marks=False)).marks is None


def test_the_worst_case_and_the_worst_attack_by_hand(storage: Storage) -> None:
    """1100 & 1010 & 0111 leaves none; the lowest of 1/2, 1/2 and 3/4 is 1/2; stages are none of them."""
    store = new(storage)
    put(store, "k", 0, "cas", {"clean": "1111", "linf": "1100", "l2": "1010", "jpeg": "0111"})
    put(store, "k", 0, "cas", {"linf/square": "0000"}, conditional=True)
    (row,) = table(store)
    assert (row["union of all"], row["worst attack"]) == (0.0, 0.5)


def test_worst_cases_need_every_attack(storage: Storage) -> None:
    store = new(storage)
    put(store, "a", 0, "cas", {"linf": "10", "jpeg": "10"})
    put(store, "b", 1, "cas", {"linf": "11"})
    assert [(row["union of all"], row["worst attack"]) for row in table(store)] == [(0.5, 0.5), (None, None)]


def test_no_union_over_protocols_is_told(storage: Storage) -> None:
    store = new(storage)
    put(store, "a", 0, "cas", {"linf": "10"})
    put(store, "a", 0, "cas", {"jpeg": "10"}, "more", protocol="quick")
    found = compare([store])
    assert found.rows[0]["union of all"] is None
    assert found.rows[0]["worst attack"] == 0.5
    assert any(note.startswith("union of all: some models have none: not comparable") for note in found.notes)


def test_a_perceptual_budget_measured_by_a_model_is_of_its_set(storage: Storage) -> None:
    store = new(storage)
    put(store, "a", 0, "cas", {"linf": "1100"})
    put(store, "a", 0, "cas", {"ppgd": "1010"}, "more", budget_id="b+abc")
    assert table(store)[0]["union of all"] == 0.25
    put(store, "a", 0, "cas", {"l2": "1010"}, "another", budget_id="b+abc")
    with pytest.raises(InputError, match="different budgets"):
        table(store, attacks=["linf", "l2"])


def test_several_unions(storage: Storage) -> None:
    store = new(storage)
    put(store, "k", 0, "cas", AFTER)
    (row,) = compare([store], unions=[["linf", "l2"], ["jpeg", "linf"]]).rows
    assert (row["union(linf,l2)"], row["union(jpeg,linf)"]) == (0.5, 0.25)


def test_the_average_on_svhn_by_hand(storage: Storage) -> None:
    """snow 1/2 and fog 1 against linf 1/4 and jpeg 3/4; lp and semantic are still there."""
    store = new(storage)
    held = {"linf": "1000", "snow": "1100", "fog": "1111", "jpeg": "1110"}
    for attack, bits in held.items():
        family = "lp" if attack == "linf" else "semantic"
        put(store, "k", 0, "cas", {attack: bits}, attack, family=family, dataset="svhn")
    (row,) = table(store)
    assert (row["avg_corruption"], row["avg_others"], row["average"]) == (0.75, 0.5, 0.625)
    assert (row["avg_lp"], row["avg_semantic"]) == (0.25, 0.75)
    usual = compare([store], average="lp-semantic")
    assert usual.rows[0]["average"] == 0.5
    assert "avg_others" not in usual.rows[0]
    assert any("avg_corruption and avg_others" in note for note in compare([store]).notes)
    with pytest.raises(InputError, match=r"unknown average 'shvn': did you mean 'svhn'\?"):
        compare([store], average="shvn")


def test_each_run_counts_at_its_own_last_epoch(storage: Storage) -> None:
    store = new(storage)
    for epoch in (1, 2, 3):
        put(store, "a", 0, "m0", {"linf": "1" * epoch + "0" * (3 - epoch)}, epoch=epoch)
    put(store, "b", 1, "m1", {"linf": "100"}, epoch=1)
    put(store, "c", 2, "m2", {"linf": "000"}, epoch=None)
    assert [row["linf"] for row in table(store)] == [1.0, pytest.approx(1 / 3), 0.0]


def test_two_sweeps_in_one_table(storage: Storage) -> None:
    """Each gains over its own pre-trained model."""
    one, two = new(storage, "one"), new(storage, "two")
    put(one, "p", None, "pretrained", BEFORE)
    put(one, "k", 0, "cas", AFTER)
    put(two, "q", None, "pretrained", AFTER)
    put(two, "l", 0, "sat", AFTER)
    found = compare([one, two])
    assert {(row["sweep"], row["method"]): row["gain"] for row in found.rows} == {
        ("one", "pretrained"): None,
        ("one", "cas"): 0.25,
        ("two", "pretrained"): None,
        ("two", "sat"): 0.0,
    }
    assert [row["method"] for row in found.rows[:2]] == ["pretrained"] * 2
    assert list(found.rows[0])[:4] == ["number", "method", "sweep", "weights"]
    with pytest.raises(InputError, match="expected each sweep once, got one, one"):
        compare([one, one])


def test_sweeps_that_do_not_compare_are_told_how_to(storage: Storage) -> None:
    one, two = new(storage, "one"), new(storage, "two")
    put(one, "k", 0, "cas", AFTER)
    put(two, "l", 0, "sat", AFTER, images="other")
    with pytest.raises(InputError) as refused:
        compare([one, two])
    assert str(refused.value) == (
        "not comparable, different images: l2 of one has 'i', l2 of two has 'other'; "
        "to compare models judge them alike: python -m sweep evaluate one/best two/best"
    )


def test_ratios_to_the_models_of_a_matrix_by_hand(storage: Storage) -> None:
    """Under linf 1/2 against 3/4, under jpeg 3/4 against 1/2: 2/3 and 3/2. Its own model is at 0 under l2."""
    store = new(storage)
    put(store, "k", 0, "cas", {"clean": "1111", "linf": "1100", "l2": "1100", "jpeg": "0111"})
    matrix = new(storage, "m", kind="tradeoff", method="individual")
    put(matrix, "p", None, "pretrained", {"linf": "1111", "jpeg": "1111"})
    put(matrix, "a", 0, "linf", {"linf": "1110", "jpeg": "1111"})
    put(matrix, "b", 1, "jpeg", {"linf": "1111", "jpeg": "1100"})
    put(matrix, "c", 2, "l2", {"l2": "0000"})
    found = compare([store], reference=matrix)
    assert found.rows[0]["cr_ind_avg"] == pytest.approx((2 / 3 + 3 / 2) / 2)
    assert found.rows[0]["cr_ind_worst"] == pytest.approx(2 / 3)
    assert "over 2 attacks" in found.notes[-2]
    assert found.notes[-1] == "Not in the ratios, without a reference above 0: l2."


def test_a_reference_must_be_one(storage: Storage) -> None:
    store = new(storage)
    put(store, "k", 0, "cas", {"linf": "1100"})
    matrix = new(storage, "m", kind="tradeoff", method="sequential")
    put(matrix, "a", 0, "linf", {"linf": "1110"})
    with pytest.raises(InputError, match="expected a reference in individual mode, m is sequential"):
        compare([store], reference=matrix)
    with pytest.raises(InputError, match=r"sweep\.json holds no sweep's spec"):
        compare([store], reference=store)


def test_a_sweep_of_models_trained_on_one_attack_is_a_reference(storage: Storage) -> None:
    """The better of two; AutoAttack judges what PGD trained."""
    document = resolve("sat", nest({"trials": 1, "dataset": "digits"})).model_dump(mode="json")
    (usual,) = document["alternatives"].values()
    trained_on = {"a": ["pgd-linf"], "b": ["linf"], "e-at-all": ["linf", "jpeg"]}
    document["alternatives"] = {
        name: usual | {"trial": usual["trial"] | {"train_attacks": held}} for name, held in trained_on.items()
    }
    alone = new(storage, "alone", spec=document)
    for number, (name, bits) in enumerate({"a": "1000", "b": "1110", "e-at-all": "1111"}.items()):
        put(alone, name, number, name, {"autoattack-linf": bits}, norm="linf")
        ended(alone, number, name, method=name, params={"method": name})
    found = compare([alone], reference=alone)
    assert {row["method"]: row["cr_ind_avg"] for row in found.rows} == pytest.approx(
        {"a": 1 / 3, "b": 1, "e-at-all": 4 / 3}
    )


def test_robustbench_entries_by_hand(storage: Storage) -> None:
    store = new(storage)
    about = {"dataset": "cifar10", "model": "preact-resnet-18-64", "protocol": "autoattack"}
    rows = {"clean": ("clean", None, None), "autoattack-linf": ("lp", "linf", 8 / 255), "jpeg": ("semantic", None, 0.1)}
    rows["pgd-l2"] = ("lp", "l2", 0.5)
    for attack, (family, norm, epsilon) in rows.items():
        flags = ["unconverged"] if attack == "pgd-l2" else []
        own = {"family": family, "norm": norm, "epsilon": epsilon, "flags": flags}
        put(store, "k", 0, "cas", {attack: "1110"}, attack, **own, **about)
    linf, l2 = entries(compare([store]))
    assert (
        linf.items()
        >= {
            "name": "cas",
            "dataset": "cifar10",
            "eps": "8/255",
            "clean_acc": "75.00",
            "autoattack_acc": "75.00",
            "reported": None,
            "unreliable": False,
            "threat_model": "Linf",
            "architecture": "preact-resnet-18-64",
        }.items()
    )
    assert (l2["threat_model"], l2["eps"], l2["unreliable"], l2["footnote"]) == ("L2", "0.5", True, "unconverged")
    assert "autoattack_acc" not in l2


def test_a_row_without_an_lp_attack_is_an_entry_without_a_threat_model(storage: Storage) -> None:
    store = new(storage)
    put(store, "k", 0, "cas", {"clean": "1110", "jpeg": "1100"})
    (entry,) = entries(compare([store]))
    assert (entry["threat_model"], entry["eps"], entry["clean_acc"]) == (None, None, "75.00")
