"""`sweep tradeoff` for real: both modes, a kill, the matrix from the stored verdicts, the heat map."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shells import Shell
from sweeps import Sweeps, wait_until

from sweep.bits import unpack
from sweep.heatmap import BLUE, CELL, MARGIN, RED, heatmap
from sweep.matrix import table
from sweep.store import Store

ATTACKS = ("linf", "l1", "fog")
FEW = ["--dataset", "digits", "--attacks", ",".join(ATTACKS), "--profile", "smoke"]
FEW += ["--epochs", "2", "--eval-size", "40"]


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    made = Sweeps(tmp_path)
    yield made
    made.end()


def bits(store: Store) -> dict[str, dict[str, Any]]:
    """Model -> attack -> verdicts."""
    found: dict[str, dict[str, Any]] = {}
    for row in store.results().to_pylist():
        found.setdefault(row["method"], {})[row["attack"]] = np.asarray(unpack(row["robust_bits"], row["n"]), float)
    return found


def matrix(store: Store) -> dict[tuple[str, str], float]:
    return {(row["trained_on"], row["attack"]): row["effect"] for row in store.tradeoff().to_pylist()}


@pytest.mark.ray
def test_individual_is_killed_and_goes_on(sweeps: Sweeps) -> None:
    """Each attack from the starting model; what was done before the kill is not done again."""
    first = sweeps.start("tradeoff", *FEW, "--id", "m", "--max-concurrent", "1")
    store = sweeps.store("m")
    results = sweeps.folder / "results" / "m" / "parquet" / "results"
    wait_until(lambda: len(list(results.glob("*.parquet"))) >= 2, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = {path: path.stat().st_mtime_ns for path in results.glob("*.parquet")}
    picture = sweeps.folder / "heat.png"
    code, out, err = sweeps.run("tradeoff", *FEW, "--id", "m", "--out", str(picture), "--format", "json")
    assert code == 0, err
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())

    found = bits(store)
    assert set(found) == {"pretrained", *ATTACKS}
    for (trained, attack), effect in matrix(store).items():
        assert effect == pytest.approx(found[trained][attack].mean() - found["pretrained"][attack].mean())
    for row in store.tradeoff().to_pylist():
        assert row["low"] <= row["effect"] <= row["high"]
    *rows, total = json.loads(out)
    assert [row["trained on"] for row in rows] == list(ATTACKS)
    assert rows[0]["sum"] == pytest.approx(sum(rows[0][name] for name in ATTACKS))
    assert total["sum"] == pytest.approx(sum(row["sum"] for row in rows))
    with Image.open(picture) as drawn:
        assert drawn.size == (MARGIN + CELL * 4, MARGIN + CELL * 4)
    epochs = store.epochs().to_pylist()
    assert len(epochs) == 2 * len(ATTACKS)
    assert all(list(json.loads(row["probabilities"])) == [ATTACKS[row["number"]]] for row in epochs)
    assert not list((sweeps.folder / "results" / "m" / "checkpoints").glob("*/*/manifest.json"))


@pytest.mark.ray
def test_sequential_goes_on_from_the_model_before(sweeps: Sweeps) -> None:
    code, _, err = sweeps.run("tradeoff", *FEW, "--id", "s", "--mode", "sequential")
    assert code == 0, err
    store = sweeps.store("s")
    found = bits(store)
    for before, trained in zip(("pretrained", *ATTACKS), ATTACKS, strict=False):
        for attack in ATTACKS:
            change = found[trained][attack].mean() - found[before][attack].mean()
            assert matrix(store)[trained, attack] == pytest.approx(change)
    loss = {row["number"]: row["train_loss"] for row in store.epochs().to_pylist() if row["epoch"] == 2}
    code, _, err = sweeps.run("tradeoff", *FEW, "--id", "s", "--mode", "sequential")
    assert code == 0, err
    assert len(loss) == len(ATTACKS)
    assert sweeps.run("tradeoff", *FEW, "--id", "s")[0] == 2, "another matrix under the same id"


def test_the_matrix_by_hand() -> None:
    cells = {("a", "a"): 0.5, ("a", "b"): -0.25, ("b", "a"): 0.0, ("b", "b"): 0.125}
    sums = {("a", "sum"): 0.25, ("b", "sum"): 0.125}
    rows = [{"trained_on": j, "attack": k, "effect": effect} for (j, k), effect in sorted((cells | sums).items())]
    assert table(rows) == [
        {"trained on": "a", "a": 0.5, "b": -0.25, "sum": 0.25},
        {"trained on": "b", "a": 0.0, "b": 0.125, "sum": 0.125},
        {"trained on": "sum", "a": 0.5, "b": -0.125, "sum": 0.375},
    ]


def test_what_falls_is_red_and_what_rises_blue(tmp_path: Path) -> None:
    rows = [{"trained on": "a", "a": 0.2, "b": -0.2, "c": 0.0, "sum": -2.0}]
    heatmap(rows, ["a", "b", "c", "sum"], "trained on", "sum", tmp_path / "h.png")
    with Image.open(tmp_path / "h.png") as drawn:
        corners = [drawn.getpixel((MARGIN + CELL * j + 2, MARGIN + 2)) for j in range(4)]
    assert corners == [BLUE, RED, (255, 255, 255), RED]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--attacks linf", "expected two attacks or more, got linf"),
        ("--attacks linf,fgo", "sat: attacks.1: unknown attack 'fgo': did you mean 'fog'?"),
        ("--attacks linf,l1 --mode parallel", "expected --mode individual or sequential, got 'parallel'"),
        ("--attacks linf,l1 --out no/such/h.png", "expected a folder for --out, got no/such, which is none"),
        ("--attacks linf,l1 --set train_attacks=[linf]", "expected no train_attacks: the matrix trains on each"),
    ],
)
def test_wrong_use_is_one_line(sweep: Shell, words: str, said: str) -> None:
    assert sweep.refused("tradeoff", "--dataset", "digits", *words.split()).startswith(said)
    assert not list(sweep.results.glob("*")) if sweep.results.exists() else True
