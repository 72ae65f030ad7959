"""`export` of a model: its folder, its card, the hub."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub import TOKEN, Hub, hub
from huggingface_hub import ModelCard, constants
from shells import Shell

from attacks.errors import InputError
from sweep import datasets
from sweep.bits import unpack
from sweep.candidates import hashed
from sweep.exports.folder import FILES
from sweep.exports.places import MADE_BY, replacing
from sweep.exports.standalone import OURS, written_out
from sweep.spec import digest
from sweep.storage import Storage
from sweep.store import Store
from trainers.models import create, io, models

ROOT = Path(__file__).parents[2]


@pytest.fixture
def storage(swept: Store, sweep: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell whose storage holds the finished sweep."""
    monkeypatch.setenv("SWEEP_STORAGE", swept.storage.uri)
    return sweep


def best_run(store: Store) -> dict[str, Any]:
    runs: list[dict[str, Any]] = store.best()["runs"]  # type: ignore[index]
    return max(runs, key=lambda run: float(run["value"]))


def verdicts(store: Store, key: str) -> dict[str, dict[str, Any]]:
    rows = store.results().to_pylist()
    return {row["attack"]: row for row in rows if row["trial"] == key and row["split"] == "test"}


def exported(shell: Shell, what: str, *more: str) -> Path:
    answer = shell("export", what, "--to", str(shell.folder / "model"), *more)
    assert answer.code == 0, answer
    assert answer.out.strip() == str(shell.folder / "model")
    assert "next: " in answer.err
    return shell.folder / "model"


def run(code: str, folder: Path, out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OUT": str(out), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, '')\n" + code]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE)


HIDDEN = "import sys\nfor name in ('attacks', 'trainers', 'sweep'):\n    sys.modules[name] = None\n"
SAVE = "\nimport os, numpy\nnumpy.save(os.environ['OUT'], {})\n"


def test_the_snippets_of_the_card_work_as_printed(swept: Store, storage: Shell) -> None:
    sweep_id, folder = swept.sweep_id, exported(storage, f"{swept.sweep_id}/best")
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    alone, with_us = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    best = best_run(swept)
    model = io.loads(swept.folder.read(f"checkpoints/{best['key']}/model.safetensors"))
    trial = swept.document()["spec"]["alternatives"][best["method"]]["trial"]
    sizes = {name: trial[name] for name in ("train_size", "eval_size", "test_size", "split_seed")}
    test = datasets.load(trial["dataset"], **sizes).test
    x = test.floats()
    with torch.no_grad():
        wanted = model(x).numpy()
    np.save(storage.folder / "x.npy", x.numpy())
    outs = [storage.folder / name for name in ("alone.npy", "logits.npy")]
    mine = f"\nimport torch, numpy\nx = torch.from_numpy(numpy.load({str(storage.folder / 'x.npy')!r}))"
    running = [
        run(HIDDEN + alone + mine + SAVE.format("model(x).detach().numpy()"), folder, outs[0]),
        run(with_us + SAVE.format("numpy.c_[logits.numpy(), correct.numpy()]"), folder, outs[1]),
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert sweep_id in (folder / "README.md").read_text()
    np.testing.assert_allclose(np.load(outs[0]), wanted, rtol=0, atol=1e-5)
    told = np.load(outs[1])
    np.testing.assert_allclose(told[:, :-1], wanted, rtol=0, atol=1e-5)
    clean = verdicts(swept, best["key"])["clean"]
    assert (told[:, -1] == unpack(clean["robust_bits"], clean["n"])).all()


def test_the_card_tells_every_accuracy_of_the_stored_bits(swept: Store, storage: Shell) -> None:
    best = best_run(swept)
    folder = exported(storage, f"{swept.sweep_id}/{best['number']}", "--seed", str(best["seed"]))
    rows = verdicts(swept, best["key"])
    start = verdicts(swept, hashed(swept.folder.read("init.safetensors")))
    bits = {name: unpack(row["robust_bits"], row["n"]) for name, row in rows.items()}
    card = ModelCard.load(folder / "README.md")
    told = {result.metric_name: result for result in card.data.eval_results}
    for name, held in bits.items():
        result = told["clean accuracy" if name == "clean" else f"robust accuracy, {name}"]
        assert result.metric_value == held.mean()
        assert (result.metric_args["n"], result.metric_args["protocol"]) == (len(held), "quick")
        assert result.dataset_split == "test"
        if held.mean() not in (0, 1):  # Wilson's ends are z standard errors from the fraction, by their own errors
            for end in (result.metric_args["low"], result.metric_args["high"]):
                assert abs(end - held.mean()) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / len(held)))
        line = f"| {name} |.*| {100 * held.mean():.1f} |.*| {100 * start[name]['robust_accuracy']:.1f} |"
        assert re.search(line, card.text), line
    lp = np.mean([bits[name].mean() for name, row in rows.items() if row["family"] == "lp"])
    other = np.mean([bits[name].mean() for name, row in rows.items() if row["family"] in ("semantic", "perceptual")])
    assert told["robust accuracy, mean of both averages"].metric_value == pytest.approx((lp + other) / 2)
    together = np.logical_and.reduce(list(bits.values())).mean()
    assert told["robust accuracy, all attacks together"].metric_value == together


def test_the_configuration_is_the_whole_of_the_work(swept: Store, storage: Shell) -> None:
    best = best_run(swept)
    folder = exported(storage, f"{swept.sweep_id}/best")
    config = json.loads((folder / "config.json").read_text())
    start = swept.folder.read("init.safetensors")
    work = {"trial": config["settings"], "init": hashed(start), "data": config["data"]["fingerprint"]}
    assert digest(work) == best["key"] == config["provenance"]["key"]
    weights = (folder / "model.safetensors").read_bytes()
    assert weights == swept.folder.read(f"checkpoints/{best['key']}/model.safetensors")
    assert config["provenance"]["sha256"] == sha256(weights).hexdigest()
    assert config["architecture"] == io.loads(weights).architecture
    assert config["normalisation"]["mean"] == config["architecture"]["mean"]
    for row in config["accuracies"]:
        if row["attack"] != "clean":
            budget = config["attacks"][row["attack"]]
            assert (budget["epsilon"], budget["num_steps"]) == (row["epsilon"], row["num_steps"])


def test_a_seed_of_its_own_and_the_starting_model(swept: Store, storage: Shell) -> None:
    configuration = swept.best()
    assert configuration is not None
    for one in configuration["runs"]:
        folder = exported(storage, f"{swept.sweep_id}/best", "--seed", str(one["seed"]))  # over the one before
        assert json.loads((folder / "config.json").read_text())["provenance"]["key"] == one["key"]
    folder = exported(storage, f"{swept.sweep_id}/pretrained")
    assert (folder / "model.safetensors").read_bytes() == swept.folder.read("init.safetensors")
    assert "started from" in (folder / "README.md").read_text()


def test_a_model_that_only_met_the_validation_split_says_so(swept: Store, storage: Shell) -> None:
    copied = shutil.copytree(swept.folder.uri, storage.folder / "results" / swept.sweep_id)
    for path in (copied / "parquet" / "results").glob("*-test-*"):
        path.unlink()
    store = Store(Storage(str(storage.folder / "results")), swept.sweep_id)
    folder = exported(storage, f"{swept.sweep_id}/best", "--storage", store.storage.uri)
    text = (folder / "README.md").read_text()
    assert "of the validation split" in text
    assert "The search chose by this split" in text
    assert ").val\n" in text


def test_what_is_refused(swept: Store, storage: Shell) -> None:
    where, sweep_id = storage.folder / "there", swept.sweep_id
    where.mkdir()
    (where / "thesis.tex").write_text("years of work")
    for what, to, said in [
        (f"{sweep_id}/best", "there", "holds what is no export (thesis.tex)"),
        (f"{sweep_id}/best", "there/thesis.tex", "expected a folder, got a file"),
        (f"{sweep_id}/best", "there/thesis.tex/x", "cannot write the folder"),
        (f"{sweep_id}/best", ".", "expected a folder of its own"),
        (f"{sweep_id}/best", "..", "expected a folder of its own"),
        (f"{sweep_id}/best", "", "expected --to DIR"),
        (f"{sweep_id}/best", "hf:", "expected --to DIR"),
        (f"{sweep_id}/best", "hf:me", "expected --to hf:USER/REPO"),
        (f"{sweep_id}/best", "mlfow:x", "did you mean 'mlflow'?"),
        (f"{sweep_id}/best", "optuna:sqlite:///x.db", "takes a whole sweep"),
        (f"{sweep_id}/99", "new", "expected one of pretrained, best, 0"),
        (f"{sweep_id}/", "new", "expected one of pretrained, best, 0"),
        (f"{sweep_id}/best/1", "new", "expected one of pretrained, best, 0"),
        (sweep_id, "new", "expected one model"),
        ("nope/best", "new", "unknown sweep 'nope'"),
    ]:
        storage.patch.chdir(storage.folder)
        assert said in storage.refused("export", what, "--to", to)
    assert "--seed to be one of" in storage.refused("export", f"{sweep_id}/best", "--to", "new", "--seed", "77")
    assert "expected no --seed" in storage.refused("export", f"{sweep_id}/pretrained", "--to", "new", "--seed", "0")


def test_weights_that_are_gone(swept: Store, storage: Shell) -> None:
    copied = shutil.copytree(swept.folder.uri, storage.folder / "results" / swept.sweep_id)
    shutil.rmtree(copied / "checkpoints" / best_run(swept)["key"])
    arguments = ("--to", str(storage.folder / "model"), "--storage", str(storage.folder / "results"))
    assert "is not kept any more" in storage.refused("export", f"{swept.sweep_id}/best", *arguments)
    (copied / "init.safetensors").unlink()
    assert "no starting model yet" in storage.refused("export", f"{swept.sweep_id}/pretrained", *arguments)


def test_an_export_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    place = tmp_path / "there"

    def fill(text: str, fault: Exception | None = None) -> None:
        with replacing(place, "mark", {"mark", "x"}.__contains__) as folder:
            (folder / "mark").write_text(json.dumps(MADE_BY))
            (folder / "x").write_text(text)
            if fault:
                raise fault

    fill("first")
    with pytest.raises(RuntimeError):
        fill("half", RuntimeError())
    with pytest.raises(InputError, match="cannot write the folder"):
        fill("half", OSError(28, "No space left on device"))
    assert (place / "x").read_text() == "first"
    fill("second")
    assert (place / "x").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("name", models.names())
def test_an_architecture_that_is_written_out_is_the_same_network(name: str, tmp_path: Path) -> None:
    model = create(name, num_classes=7, width=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), activation="silu", seed=3)
    model.eval()
    io.save(model, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": model.architecture}))
    text = written_out(name)
    imported = {str(node.module) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert not {module.split(".")[0] for module in imported} & set(OURS)
    made: dict[str, Any] = {"__name__": "model"}
    exec(compile(text, "model.py", "exec"), made)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(made["load"](tmp_path)(x), model(x))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The real client speaks to this one, by plain LFS."""
    with hub() as held:
        monkeypatch.setattr(constants, "ENDPOINT", held.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield held


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, of its plain LFS
def test_upload(swept: Store, storage: Shell, server: Hub) -> None:
    answer = storage("export", f"{swept.sweep_id}/best", "--to", "hf:me/model")
    assert answer.code == 0, answer
    assert answer.out.strip() == f"{server.endpoint}/me/model/commit/1"
    assert server.repositories == {"me/model": True}
    folder = exported(storage, f"{swept.sweep_id}/best")
    assert server.files == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_uploads_that_fail(swept: Store, storage: Shell, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("export", f"{swept.sweep_id}/best", "--to", "hf:me/model")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "cannot upload to me/model (" in storage.refused(*arguments)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "check the network" in storage.refused(*arguments)
    assert not server.repositories
