"""Whole sweeps by real processes: run, kill, resume, fail."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from sweeps import Sweeps, wait_until

from sweep import results
from sweep.bits import unpack, unpack_classes
from sweep.store import Store
from trainers.models import io

pytestmark = pytest.mark.ray


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    made = Sweeps(tmp_path)
    yield made
    made.end()


def complete(store: Store) -> list[int]:
    return [row["number"] for row in store.trials().to_pylist() if row["state"] == "COMPLETE"]


def addresses_listened_on(pid: int) -> set[str]:
    """Of a process and all its descendants."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    connections = [one for process in family for one in process.net_connections("inet")]
    return {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}


def saved_history(checkpoints: Path) -> list[dict[str, float]]:
    """The records in the newest checkpoint whose manifest is there."""
    newest = max(checkpoints.glob("*/*/manifest.json"), key=lambda path: int(path.parent.name))
    history: list[dict[str, float]] = json.loads((newest.parent / "state.json").read_text())["history"]
    return history


def test_a_sweep_runs_end_to_end_and_its_folder_answers(sweeps: Sweeps) -> None:
    code, out, err = sweeps.run("run", sweeps.space("cas"), "--trials", "2", "--id", "whole")
    assert code == 0, err
    assert out.splitlines()[0] == "whole"
    assert "best: trial" in out
    assert "python -m sweep resume whole" in out
    finished = [line.split()[:3] for line in err.splitlines() if line.startswith("trial ")]
    assert sorted(finished) == [["trial", "0", "COMPLETE"], ["trial", "1", "COMPLETE"]]
    assert "ray" not in err.lower(), "Ray is to be silent without -v"

    frame = results(str(sweeps.folder / "results"), "whole")
    test = frame[frame.split == "test"]
    assert set(test.method) == {"pretrained", "cas"}
    assert set(test.attack) == {"clean", "linf", "l1", "blur"}
    assert set(test[test.method == "cas"].weights) == {"averaged"}
    assert test.images.nunique() == 1

    sql = "select attack, avg(robust_accuracy) from results where split='test' group by 1"
    code, out, err = sweeps.run("query", sql, "--format", "json")
    assert code == 0, err
    assert {row["attack"] for row in json.loads(out)} == {"clean", "linf", "l1", "blur"}

    code, out, err = sweeps.run("table", "whole", "--union", "linf,l1", "--format", "json")
    assert code == 0, err
    tuned = next(row for row in json.loads(out) if row["method"] == "cas")
    rows = test[(test.method == "cas") & test.attack.isin(["linf", "l1"])].itertuples()
    bits = [unpack(row.robust_bits, row.n) for row in rows]
    assert tuned["union(linf,l1)"] == pytest.approx(float(np.logical_and(*bits).mean()))


def test_several_attacks_a_batch_and_what_they_leave_in_epochs(sweeps: Sweeps) -> None:
    """MAX under AdaptiveBudget: budgets moved within the clip, and who dominated."""
    code, _, err = sweeps.run("run", sweeps.space("max+ab-l2", epochs=1), "--trials", "1", "--id", "max")
    assert code == 0, err
    (epoch,) = sweeps.store("max").epochs().to_pylist()
    budgets, base = json.loads(epoch["budgets"]), {"linf": 0.2, "l1": 30.0, "blur": 0.3}
    assert set(budgets) == set(base)
    assert all(0.5 * base[name] <= used <= 2 * base[name] for name, used in budgets.items())
    assert any(used != pytest.approx(base[name]) for name, used in budgets.items())
    wins = {key: value for key, value in json.loads(epoch["domination"]).items() if key.startswith("wins.")}
    assert sum(wins.values()) == pytest.approx(1.0)
    assert epoch["forwards"] > 6
    trial = sweeps.store("max").trials().to_pylist()[0]
    assert (trial["state"], trial["method"]) == ("COMPLETE", "max+ab-l2")


def test_two_ddp_workers_are_killed_and_go_on(sweeps: Sweeps) -> None:
    every = ["--workers", "2", "--set", "evaluation.every=16"]
    process = sweeps.start("run", sweeps.space(epochs=40), "--trials", "1", *every, "--id", "ddp")
    checkpoints = sweeps.folder / "results/ddp/checkpoints"
    wait_until(lambda: bool(list(checkpoints.glob("*/*/manifest.json"))), process)
    process.kill()
    process.wait()
    store = sweeps.store("ddp")
    assert complete(store) == []
    before = saved_history(checkpoints)

    code, _, err = sweeps.run("resume", "ddp")
    assert code == 0, err
    assert complete(store) == [0]
    epochs = store.epochs().to_pylist()
    assert [row["epoch"] for row in epochs] == list(range(1, 41))
    seconds = [row["seconds"] for row in epochs]
    assert seconds[: len(before)] == [record["seconds"] for record in before], "epochs were trained again"
    val = [row for row in store.results().to_pylist() if row["split"] == "val"]
    assert [row["epoch"] for row in val if row["attack"] == "clean"] == [16, 32, 40]
    for row in val:
        labels = unpack_classes(next(one["labels"] for one in val if one["labels"]), row["n"])
        right = unpack_classes(row["predicted"], row["n"]) == labels
        assert right.tolist() == unpack(row["robust_bits"], row["n"]).tolist()


def test_a_sweep_stays_on_loopback_and_an_interrupt_is_resumable(sweeps: Sweeps) -> None:
    process = sweeps.start("run", sweeps.space(), "--trials", "50", "--id", "stopped")
    store = sweeps.store("stopped")
    wait_until(lambda: (sweeps.folder / "results/stopped/plans").exists() and bool(complete(store)), process)
    assert addresses_listened_on(process.pid) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    os.kill(process.pid, signal.SIGINT)
    process.wait(60)
    assert process.returncode == 130
    assert "python -m sweep resume stopped" in (sweeps.folder / "log").read_text()
    assert not (sweeps.folder / "results/stopped/lease.json").exists()
    states = {row["state"] for row in store.trials().to_pylist()}
    assert states <= {"COMPLETE", "PLANNED"}


def test_a_diverging_trial_fails_and_the_sweep_goes_on(sweeps: Sweeps) -> None:
    search = "  optimizer.lr: {values: [0.05, 1.0e+30]}"
    code, _, err = sweeps.run("run", sweeps.space(search=search), "--trials", "6", "--id", "diverged", "--seed", "1")
    rows = sweeps.store("diverged").trials().to_pylist()
    states = {json.loads(row["params"])["optimizer.lr"]: row["state"] for row in rows}
    assert states == {0.05: "COMPLETE", 1e30: "FAILED"}, err
    assert code == 3
    failed = next(row for row in rows if row["state"] == "FAILED")
    assert "not finite" in failed["error"]
    trained = {row["trial"] for row in sweeps.store("diverged").results().to_pylist() if row["split"] == "val"}
    assert len(trained) == 1, "equal configurations were run twice"
    assert len(rows) == 6


@pytest.mark.data
@pytest.mark.parametrize("dataset", ["cifar10-small", "mnist"])
def test_real_images_from_parquet(sweeps: Sweeps, real_data: Path, dataset: str) -> None:
    sizes = ["--width", "2", "--train-size", "64", "--eval-size", "20", "--epochs", "1", "--trials", "1"]
    steps = ["--attack-steps", "1", "--eval-steps", "1", "--attacks", "linf,l1,blur", "--batch-size", "32"]
    quick = ["--set", "pretraining.epochs=1", "--data-root", str(real_data)]
    code, _, err = sweeps.run("run", "cas", "--dataset", dataset, *sizes, *steps, *quick, "--id", dataset)
    assert code == 0, err
    rows = sweeps.store(dataset).results().to_pylist()
    assert {row["n"] for row in rows} == {20}
    assert {row["split"] for row in rows} == {"val", "test"}


def test_equal_proposals_in_flight_are_run_once(sweeps: Sweeps) -> None:
    code, _, err = sweeps.run("run", sweeps.space(search="  {}"), "--trials", "3", "--id", "equal")
    assert code == 0, err
    store = sweeps.store("equal")
    assert complete(store) == [0, 1, 2]
    assert len({row["key"] for row in store.trials().to_pylist()}) == 1
    (outcome,) = (sweeps.folder / "results/equal/checkpoints").glob("*/outcome.json")
    assert json.loads(outcome.read_text())["attempts"] == 1


def test_an_address_where_nobody_listens_is_refused_before_anything_is_written(sweeps: Sweeps) -> None:
    code, out, err = sweeps.run("run", sweeps.space(), "--address", "127.0.0.1:1")
    assert (code, out) == (2, "")
    assert err.startswith("error: cannot reach a Ray cluster at 127.0.0.1:1: ")
    assert not list((sweeps.folder / "results").glob("*/sweep.json"))


def test_a_sweep_starts_from_a_file_of_an_earlier_one(sweeps: Sweeps) -> None:
    smooth = ["--set", "model.activation=softplus"]
    code, _, err = sweeps.run("run", sweeps.space(), "--trials", "1", "--init", "none", "--id", "fresh", *smooth)
    assert code == 0, err
    (weights,) = (sweeps.folder / "results/fresh/checkpoints").glob("*/model.safetensors")
    assert io.load(str(weights)).architecture["activation"] == "softplus"  # type: ignore[index]
    code, _, err = sweeps.run("run", sweeps.space(), "--trials", "1", "--init", str(weights), "--id", "onwards")
    assert code == 0, err
    assert (sweeps.folder / "results/onwards/init.safetensors").read_bytes() == weights.read_bytes()
