"""`evaluate`, `calibrate` and the gallery by real processes on a small trained model: kill, go on, compare, refuse."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image
from sweeps import Sweeps, wait_until

import attacks
from sweep import datasets
from sweep.bits import unpack, unpack_classes
from sweep.examples import png
from sweep.store import Store
from trainers import models
from trainers.evaluate import evaluate, protocol
from trainers.models import io
from trainers.pretrain import Pretraining, pretrain

pytestmark = pytest.mark.ray
ATTACKS = "linf,fog,ppgd,square-linf"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that gets most digits right, and whose weights are a file."""
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    model = models.create(num_classes=10, width=4)
    train = datasets.load("digits", train_size=800).train
    recipe = Pretraining(clean_epochs=5, epochs=1, attack_steps=1, batch_size=32, flip=False, crop_padding=0)
    pretrain(model, train, attacks.get("linf", "digits", 0.02), recipe, seed=0)
    io.save(model, path)
    return path


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    made = Sweeps(tmp_path)
    yield made
    made.end()


def judge(path: Path, *more: str) -> list[str]:
    quick = ["--dataset", "digits", "--protocol", "quick", "--eval-steps", "4", "--n", "60", "--batch-size", "16"]
    return ["evaluate", str(path), *quick, "--checked", "20", "--attacks", ATTACKS, *more]


def rows_of(store: Store) -> dict[str, dict[str, object]]:
    return {row["attack"]: row for row in store.results().to_pylist()}


def test_an_evaluation_is_killed_and_goes_on(sweeps: Sweeps, checkpoint: Path) -> None:
    """What was judged before the kill is not judged again, and the verdicts are those of trainers.evaluate."""
    first = sweeps.start(*judge(checkpoint, "--id", "e", "--max-concurrent", "1"))
    units = sweeps.folder / "results" / "e" / "units"
    wait_until(lambda: len(list(units.rglob("*.safetensors"))) >= 6, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = {path: path.stat().st_mtime_ns for path in units.rglob("*.safetensors")}
    second = sweeps.start(*judge(checkpoint, "--id", "e", "--max-concurrent", "1"))
    said = sweeps.folder / "out"
    wait_until(lambda: bool(said.read_text()) and len(list(units.rglob("*.safetensors"))) > len(done), second)
    os.kill(second.pid, signal.SIGINT)
    assert second.wait(60) == 130
    assert "interrupted; the same command goes on" in (sweeps.folder / "log").read_text()
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())
    code, out, err = sweeps.run(*judge(checkpoint, "--id", "e"))
    assert code == 0, err
    assert out.splitlines()[0] == "e"
    assert not list(units.rglob("*"))

    found = rows_of(sweeps.store("e"))
    model, test = io.load(checkpoint), datasets.load("digits", test_size=60).test
    of = {name: attacks.get(name, "digits").bind(model) for name in ATTACKS.split(",")}
    kept = sweeps.store("e").examples().to_pylist()
    how: dict[str, Any] = {"protocol": protocol("quick", 4), "seed": 0, "batch_size": 16}
    for verdict in evaluate(model, test, of, **how, keep_worst=True):
        row, mine = found[verdict.attack], [row for row in kept if row["attack"] == verdict.attack]
        assert (row["predicted"] is None) == verdict.conditional == (verdict.predicted is None)
        if verdict.predicted is not None:
            assert unpack_classes(row["predicted"], 60).tolist() == verdict.predicted.tolist()  # type: ignore[arg-type]
        assert [(one["rank"], one["image"], one["predicted"], one["png"]) for one in mine] == [
            (rank, one.image, one.predicted, png(one.clean)) for rank, one in enumerate(verdict.worst, start=1)
        ]
        assert unpack(row["robust_bits"], 60).tolist() == verdict.robust.tolist(), verdict.attack  # type: ignore[arg-type]
        assert row["protocol"] == "quick-4"
    assert len(kept) > 6
    assert unpack_classes(found["clean"]["labels"], 60).tolist() == test.labels.tolist()  # type: ignore[arg-type]
    assert found["linf"]["norm"] == "linf"
    assert str(found["ppgd"]["budget_id"]).startswith("digits+")

    code, again, err = sweeps.run(*judge(checkpoint, "--id", "e", "--union", "linf,fog", "--format", "json"))
    assert code == 0, err
    union = unpack(found["linf"]["robust_bits"], 60) & unpack(found["fog"]["robust_bits"], 60)  # type: ignore[arg-type]
    assert json.loads(again)[0]["union(linf,fog)"] == pytest.approx(np.mean(union))


def test_other_verbs_know_an_evaluation(sweeps: Sweeps, checkpoint: Path) -> None:
    code, out, err = sweeps.run(*judge(checkpoint), "--attacks", "fog", "--checked", "0")
    assert code == 0, err
    made = out.splitlines()[0]
    assert made.startswith("evaluate-")
    for verb in ("resume", "status", "best"):
        code, _, err = sweeps.run(verb, made)
        assert code == 2
        assert "is an evaluation, not a sweep" in err
    assert made in sweeps.run("ls")[1]
    assert sweeps.run("table", made, "--format", "json")[0] == 0
    sql = "select method, n from results where attack = 'fog'"
    assert json.loads(sweeps.run("query", sql, "--format", "json")[1]) == [{"method": "net", "n": 60}]
    code, _, err = sweeps.run(*judge(checkpoint), "--id", made)
    assert code == 2
    assert "judges something else" in err


def test_scaled_budgets_are_an_evaluation_each(sweeps: Sweeps, checkpoint: Path) -> None:
    """The same command goes on: here with one scale more, under ids of its own or under those that it is told."""
    at = ["--checked", "0", "--attacks", "linf,fog", "--format", "json"]
    code, plain, err = sweeps.run(*judge(checkpoint, *at))
    assert code == 0, err
    (usual,) = (path.name for path in (sweeps.folder / "results").iterdir() if path.name.startswith("evaluate-"))
    written = sweeps.folder / "results" / usual / "parquet" / "results"
    before = {path: path.stat().st_mtime_ns for path in written.iterdir()}
    code, out, err = sweeps.run(*judge(checkpoint, *at, "--scales", "0.25,1,4"))
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in written.iterdir()} == before
    rows = json.loads(out)
    assert [row.pop("scale") for row in rows] == [0.25, 1, 4]
    assert rows[1] == json.loads(plain)[0]
    assert rows[0]["average"] > rows[2]["average"]
    ids = [line for line in err.splitlines() if line.startswith("evaluate-")]
    assert ids[1] == usual
    for scale, made in zip([0.25, 1, 4], ids, strict=True):
        store = sweeps.store(made)
        assert store.document()["scale"] == scale
        for name in ("linf", "fog"):
            assert rows_of(store)[name]["epsilon"] == pytest.approx(scale * attacks.get(name, "digits").epsilon)
    code, out, err = sweeps.run(*judge(checkpoint, "--checked", "0", "--attacks", "fog", "--scales", "2", "--id", "f"))
    assert code == 0, err
    assert out.splitlines()[0] == "f-x2"


def test_autoattack_and_its_stages_and_alexnet_features(sweeps: Sweeps, checkpoint: Path) -> None:
    """A stage's verdicts are conditional: they are no columns and no part of an average."""
    weights = sweeps.folder / "alexnet.safetensors"
    shapes = {0: (64, 3), 3: (192, 64), 6: (384, 192), 8: (256, 384), 10: (256, 256)}
    generator = torch.Generator().manual_seed(0)
    made = {f"features.{i}.weight": torch.randn(*shape, 3, 3, generator=generator) / 30 for i, shape in shapes.items()}
    made |= {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}
    safetensors.torch.save_file(made, weights)
    how = ["--dataset", "digits", "--protocol", "autoattack", "--eval-steps", "3", "--n", "20", "--checked", "0"]
    arguments = ["evaluate", str(checkpoint), *how, "--attacks", "linf,l2,ppgd", "--features", str(weights)]
    code, out, err = sweeps.run(*arguments, "--format", "json")
    assert code == 0, err
    (row,) = json.loads(out)
    assert {"autoattack-linf", "autoattack-l2", "ppgd"} <= set(row)
    assert row["avg_lp"] == pytest.approx((row["autoattack-linf"] + row["autoattack-l2"]) / 2)
    (made_id,) = [path.name for path in (sweeps.folder / "results").iterdir()]
    found = rows_of(sweeps.store(made_id))
    last = [found[f"autoattack-linf/{part}"] for part in ("apgd-ce", "apgd-t", "fab-t", "square")]
    assert all(stage["conditional"] for stage in last)
    assert {stage["predicted"] for stage in last} == {None}
    assert found["autoattack-linf"]["predicted"] is not None
    assert last[-1]["robust_bits"] == found["autoattack-linf"]["robust_bits"]
    assert [stage["n_robust"] for stage in last] == sorted((stage["n_robust"] for stage in last), reverse=True)  # type: ignore[type-var]


def test_a_trial_and_its_start_are_judged_side_by_side(sweeps: Sweeps) -> None:
    assert sweeps.run("run", sweeps.space(epochs=1), "--trials", "1", "--id", "s")[0] == 0
    quick = ["--protocol", "quick", "--eval-steps", "2", "--n", "250", "--attacks", "linf,blur", "--checked", "0"]
    code, out, err = sweeps.run("evaluate", "s/best", "s/pretrained", *quick, "--format", "json")
    assert code == 0, err
    rows = json.loads(out)
    assert [(row["number"], row["method"]) for row in rows] == [(None, "pretrained"), (0, "sat")]
    assert rows[1]["gain"] == pytest.approx(rows[1]["average"] - rows[0]["average"])
    stored = sweeps.store("s").results().to_pylist()
    before = {(r["trial"], r["attack"]): r["robust_bits"] for r in stored if r["split"] == "test"}
    (made,) = [path.name for path in (sweeps.folder / "results").iterdir() if path.name.startswith("evaluate-")]
    after = {(r["trial"], r["attack"]): r["robust_bits"] for r in sweeps.store(made).results().to_pylist()}
    assert len(after) == 6
    assert after.items() <= before.items()
    code, _, err = sweeps.run("evaluate", "s/7", *quick)
    assert code == 2
    assert "expected one of pretrained, best, 0 after s/, got '7'" in err


def test_calibrated_budgets_are_evidence_and_a_sweep_takes_them(sweeps: Sweeps, checkpoint: Path) -> None:
    file = sweeps.folder / "budgets.yaml"
    command = ["calibrate", "--model", str(checkpoint), "--dataset", "digits", "--attacks", "fog,pixel", "--n", "50"]
    command += ["--protocol", "quick", "--eval-steps", "3", "--target", "0.2:0.5", "--out", str(file)]
    code, out, err = sweeps.run(*command)
    assert code == 0, err
    assert out.strip() == str(file)
    made = yaml.safe_load(file.read_text())
    assert set(made["attacks"]) == {"fog", "pixel"}
    assert made["evidence"]["n"] == 50
    model, val = io.load(checkpoint), datasets.load("digits", eval_size=50).val
    for name, row in made["attacks"].items():
        rounds = made["evidence"]["rounds"][name]
        attack = attacks.get(name, "digits", budget=row)
        (_, verdict) = evaluate(model, val, {name: attack}, protocol=protocol("quick", 3), seed=0)
        nearest = min(rounds, key=lambda one: abs(one[0] - row["epsilon"]))
        assert float(verdict.robust.float().mean()) == pytest.approx(nearest[1], abs=0.041)
    assert sweeps.run(*command)[0] == 2, "a file that is there is not written over"
    space = sweeps.space(epochs=1).replace(".yaml", "-2.yaml")
    Path(space).write_text(Path(sweeps.space(epochs=1)).read_text().replace("[linf, l1, blur]", "[linf, fog]"))
    code, _, err = sweeps.run("run", space, "--trials", "1", "--id", "b", "--budgets", str(file))
    assert code == 0, err
    fog = [row for row in sweeps.store("b").results().to_pylist() if row["attack"] == "fog"]
    assert {row["epsilon"] for row in fog} == {made["attacks"]["fog"]["epsilon"]}
    assert all(row["budget_id"] != "digits" for row in fog)


def test_the_gallery_is_a_picture_of_all_attacks(sweeps: Sweeps, checkpoint: Path) -> None:
    file = sweeps.folder / "g.png"
    arguments = ["attacks", "--dataset", "digits", "--model", str(checkpoint), "--image", "3", "--gallery", str(file)]
    code, out, err = sweeps.run(*arguments)
    assert code == 0, err
    assert out.strip() == str(file)
    pixels = torch.tensor(np.asarray(Image.open(file).convert("RGB")))
    assert pixels.shape[0] > 6 * 112
    assert len(pixels.flatten(0, 1).unique(dim=0)) > 1000
    assert sweeps.run(*arguments)[0] == 2
