"""show, diff, pareto and importance on the command line."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from judgements import end, judge, sweep_of
from shells import Shell
from sweeps import planned

from sweep.analysis.sections import sparkline
from sweep.bits import unpack
from sweep.intervals import wilson
from sweep.store import Store

WORST = ("union of all", "worst attack")
SPACE = "method: sat\ndataset: digits\nattacks: [linf, blur]\nsearch: {optimizer.lr: {low: 0.01, high: 1}}\n"


@pytest.fixture
def store(sweep: Shell) -> Store:
    """A trial that ended well, one that did not, and one that is planned."""
    made = sweep_of(sweep.folder, SPACE)
    end(made, 0, {"optimizer.lr": 0.1}, [0.5], device="cpu", host="here", revision="abc", seconds=7.5, attempts=2)
    judge(made, "0-0", {"clean": [1, 1, 1, 0], "linf": [1, 0, 0, 0], "blur": [1, 1, 0, 0]}, flags=["masked"])
    losses = [2.0, 1.0, None]
    epochs = [{"number": 0, "epoch": k + 1, "train_loss": loss, "seconds": 2.0} for k, loss in enumerate(losses)]
    probabilities = {"linf": 0.75, "blur": 0.25}
    passes = {"forwards": 3.0, "backwards": 2.0, "probabilities": probabilities, "lr": 0.1, "train_accuracy": 0.25}
    made.write_epochs("0-0", [row | passes for row in epochs])
    end(made, 1, {"optimizer.lr": 0.2}, [0.0], state="FAILED", error="Diverged: the loss is nan at epoch 3,\nbatch 7")
    made.write_plan(2, planned("2-0", **{"optimizer.lr": 0.3}))
    return made


def asked(sweep: Shell, *words: str) -> Any:
    answer = sweep(*words, "--format", "json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_all_that_is_stored_of_a_trial(sweep: Shell, store: Store) -> None:
    told = asked(sweep, "show", "s/0")
    assert (told["trial"]["state"], told["trial"]["value"], told["trial"]["seeds"]) == ("COMPLETE", 0.5, 1)
    settings = {row["address"]: (row["value"], row["searched"]) for row in told["configuration"]}
    assert settings["optimizer.lr"] == (0.1, True)
    assert settings["optimizer.momentum"] == (0.9, False)
    assert [address for address, (_, searched) in settings.items() if searched] == ["optimizer.lr"]
    (run,) = told["runs"]
    assert (run["seconds"], run["epochs_seconds"], run["forwards"], run["backwards"]) == (7.5, 6.0, 9.0, 6.0)
    assert (run["host"], run["device"], run["revision"], run["attempts"]) == ("here", "cpu", "abc", 2)
    rows = {row["attack"]: row for row in told["attacks"]}
    assert [row["accuracy"] for row in rows.values()] == [0.75, 0.25, 0.5, 0.25, 0.5, 0.375, 0.25, 0.25]
    assert (rows["linf"]["low"], rows["linf"]["high"]) == pytest.approx(wilson(1, 4))
    assert (rows["linf"]["flags"], rows["linf"]["n"], rows["linf"]["split"]) == ("masked", 4, "val")
    assert [(row["epoch"], row["train_loss"], row["probabilities"]) for row in told["curves"]] == [
        (k + 1, loss, {"linf": 0.75, "blur": 0.25}) for k, loss in enumerate([2.0, 1.0, None])
    ]
    assert {"what": "torch version", "value": "2"} in told["environment"]
    assert list(told["commands"]) == ["run again", "evaluate", "export"]
    assert told["errors"] == []


def test_a_trial_for_a_reader(sweep: Shell, store: Store) -> None:
    answer = sweep("show", "s/0")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    titles = ["s/0:", "configuration:", "runs:", "accuracies (%):", "curves:", "environment:", "commands:"]
    assert [line for line in lines if line in titles] == titles
    assert any(line.split() == ["loss", "█▁"] for line in lines), answer.out
    assert any(line.split()[:3] == ["val", "linf", "lp"] and "25.0" in line for line in lines)
    assert any(line.endswith("linf 0.75, blur 0.25") for line in lines)
    assert "    python -m sweep evaluate s/0 --attacks all --protocol full" in lines
    assert "## runs" in sweep("show", "s/0", "--format", "md").out


def test_a_failed_trial_tells_its_error_in_full(sweep: Shell, store: Store) -> None:
    told = asked(sweep, "show", "s/1")
    assert told["errors"] == [{"seed": 0, "error": "Diverged: the loss is nan at epoch 3,\nbatch 7"}]
    assert (told["trial"]["state"], told["attacks"], told["curves"]) == ("FAILED", [], [])
    assert list(told["commands"]) == ["run again"]
    assert "Diverged: the loss is nan at epoch 3," in sweep("show", "s/1").out


def test_a_trial_that_is_made_no_more(sweep: Shell, store: Store) -> None:
    """By a version that ships one space only, of another method's settings."""
    sweep.patch.setattr("sweep.spaces.names", lambda: ["cas"])
    assert asked(sweep, "show", "s/0")["commands"]["run again"] is None
    assert "    # run again: not by this version, whose settings are others\n" in sweep("show", "s/0").out


def test_a_planned_trial_and_the_starting_model(sweep: Shell, store: Store) -> None:
    assert asked(sweep, "show", "s/2")["trial"]["state"] == "PLANNED"
    judge(store, "p", {"clean": [1, 0, 0, 0]}, split="test", method="pretrained")
    told = asked(sweep, "show", "s/pretrained")
    assert (told["configuration"], told["runs"]) == ([], [])
    assert [(row["attack"], row["accuracy"]) for row in told["attacks"]] == [("clean", 0.25)]
    assert sweep("show", "s/pretrained").code == 0


def test_two_trials_for_a_reader(sweep: Shell, store: Store) -> None:
    end(store, 3, {"optimizer.lr": 0.4}, [0.5])
    judge(store, "3-0", {"clean": [1, 1, 1, 0], "linf": [1, 1, 0, 0], "blur": [1, 1, 0, 0]})
    answer = sweep("diff", "s/0", "s/3", "--only-changed")
    assert answer.code == 0, answer.err
    lines = [line.split() for line in answer.out.splitlines()]
    assert answer.out.startswith("A = s/0, B = s/3, on split val:\n")
    assert ["optimizer.lr", "0.1", "0.4"] in lines  # a setting, no percentage
    assert [line[0] for line in lines if line and "25.0" in line[3:5]] == ["linf", "avg_lp", "union", "worst"]
    assert ["blur", "50.0", "50.0"] not in [line[:3] for line in lines]
    told = asked(sweep, "diff", "s/0", "s/3")
    assert [row["attack"] for row in told["accuracies"]] == [
        "clean",
        "linf",
        "blur",
        "avg_lp",
        "avg_semantic",
        "average",
        *WORST,
    ]
    judge(store, "p", {"clean": [1, 0, 0, 0]}, method="pretrained")
    assert "the starting model has no settings" in sweep("diff", "s/0", "s/pretrained").out


def test_the_service_s_own_sweep(sweep: Shell, swept: Store) -> None:
    """The best trial of the fixture: every attack on both splits, as numpy has it from the bits."""
    where = ("--storage", swept.storage.uri)
    told = asked(sweep, "show", "fixture/best", *where)
    number = told["trial"]["number"]
    stored = [row for row in swept.results().to_pylist() if row["number"] == number]
    for split in ("val", "test"):
        rows = {row["attack"]: row for row in told["attacks"] if row["split"] == split}
        assert list(rows)[-2:] == list(WORST)
        for attack in list(rows)[:22]:
            held = [row for row in stored if (row["split"], row["attack"]) == (split, attack)]
            robust = np.asarray([unpack(row["robust_bits"], row["n"]) for row in held])
            assert len(robust) == rows[attack]["seeds"] == 3
            assert rows[attack]["accuracy"] == pytest.approx(robust.mean())
            assert rows[attack]["low"] <= robust.mean() <= rows[attack]["high"]
    val = next(row for row in told["attacks"] if (row["split"], row["attack"]) == ("val", "average"))
    assert val["accuracy"] == pytest.approx(told["trial"]["value"])
    assert [run["seed"] for run in told["runs"]] == [0, 1, 2]
    assert len(told["curves"]) == 6
    assert [row["number"] for row in asked(sweep, "pareto", "fixture", *where)]
    answer = sweep("importance", "fixture", *where)
    assert answer.err == "over 5 finished trials; from few, importance is mostly noise\n"
    assert answer.out.splitlines()[0].split() == ["method", "parameter", "importance", "trials"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("show s/9", "expected pretrained, best or 0 to 2 after s/, got '9'"),
        ("show t/0", "unknown sweep 't': known: s"),
        ("show s/0 --format csv", "unknown format of several tables 'csv': known: json, md, table"),
        ("diff s/0 s/1", "s/1 is FAILED: only a COMPLETE trial has accuracies to compare"),
        ("diff s/0 s/2", "s/2 is PLANNED: only a COMPLETE trial has accuracies to compare"),
        ("pareto s --x claen", "unknown column 'claen': did you mean 'clean'?"),
        ("pareto s --split test", "sweep s has no results on split 'test': it has val"),
        ("importance s", "expected at least 4 finished trials to say what is important, got 1"),
        ("importance s --evaluator x", "unknown evaluator 'x': known: fanova, ped-anova"),
    ],
)
def test_wrong_use_is_told_in_a_line(sweep: Shell, store: Store, words: str, message: str) -> None:
    assert sweep.refused(*words.split()) == message


@pytest.mark.parametrize("damage", [{"n": 2, "robust_bits": b"\xc0", "n_robust": 2}, {"robust_bits": None}])
def test_damaged_verdicts_are_told_in_a_line(sweep: Shell, store: Store, damage: dict[str, Any]) -> None:
    judge(store, "0-0", {"blur": [1, 1, 0, 0]}, split="val", **damage)
    for words in ("show s/0", "diff s/0 s/0", "pareto s"):
        answer = sweep(*words.split())
        assert answer.code in (0, 2)
        assert "Traceback" not in answer.err


def test_sparklines() -> None:
    assert sparkline([0.0, 7.0, None, 3.0]) == "▁█ ▄"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([2.0, float("nan"), 1.0]) == "█ ▁"
    assert sparkline([None]) == ""
