"""`export` of a sweep: Optuna and its dashboard, TensorBoard, MLflow, W&B. Each reads back what was written."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from shells import Shell
from sweeps import planned
from tensorboardX.proto.event_pb2 import Event

from sweep.bits import unpack
from sweep.exports import needed
from sweep.exports.runs import runs
from sweep.storage import Storage
from sweep.store import Store


@pytest.fixture
def mine(swept: Store, sweep: Shell) -> Store:
    """A copy of the finished sweep in the shell's storage."""
    shutil.copytree(swept.storage.uri, sweep.results)
    return Store(Storage(str(sweep.results)), swept.sweep_id)


def accuracy(store: Store, split: str, attack: str) -> dict[str, float]:
    """Key -> the fraction of the set bits."""
    rows = [row for row in store.results().to_pylist() if (row["split"], row["attack"]) == (split, attack)]
    return {row["trial"]: float(unpack(row["robust_bits"], row["n"]).mean()) for row in rows}


def sat(key: str) -> dict[str, Any]:
    """The plan of one more run of an alternative."""
    return planned(key) | {"params": {"method": "sat"}}


def exported(sweep: Shell, store: Store, to: str) -> str:
    answer = sweep("export", store.sweep_id, "--to", to)
    assert answer.code == 0, answer
    return answer.err.splitlines()[-1].removeprefix("next: ")


def loaded(path: Path, name: str) -> optuna.Study:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.load_study(study_name=name, storage=storage)


def test_optuna(mine: Store, sweep: Shell) -> None:
    path = sweep.folder / "study.log"
    assert exported(sweep, mine, f"optuna:{path}") == f"optuna-dashboard {path}"
    study = loaded(path, mine.sweep_id)
    trials, rows = study.get_trials(), mine.trials().to_pylist()
    linf = accuracy(mine, "test", "linf")
    epochs = mine.epochs().to_pylist()
    assert [trial.number for trial in trials] == sorted({row["number"] for row in rows})
    for trial in trials:
        own = [row for row in rows if row["number"] == trial.number and not row["replay"]]
        own.sort(key=lambda row: row["seed"])
        assert trial.state == TrialState.COMPLETE
        assert trial.value == pytest.approx(np.mean([row["value"] for row in own]))
        assert trial.user_attrs["seeds"] == [row["seed"] for row in own]
        assert trial.user_attrs["keys"] == [row["key"] for row in own]
        assert trial.user_attrs["test/linf"] == pytest.approx(np.mean([linf[row["key"]] for row in own]))
        for epoch, mean in trial.intermediate_values.items():
            seen = [
                e["train_accuracy"] for row in own for e in epochs if (e["trial"], e["epoch"]) == (row["key"], epoch)
            ]
            assert mean == pytest.approx(np.mean(seen))
        assert sorted(trial.intermediate_values) == [1, 2]
        params = json.loads(own[0]["params"])
        assert trial.params["method"] == params["method"]
        conditional = {"alpha: sampler.alpha": params["sampler.alpha"]} if "sampler.alpha" in params else {}
        assert {**trial.params} == {"method": params["method"]} | conditional
        assert trial.distributions["method"].choices == ("e-at-all", "sat", "cas+mde", "alpha")
        if conditional:
            assert trial.distributions["alpha: sampler.alpha"].choices == (1, 10)
    assert study.best_trial.number == mine.best()["number"]  # type: ignore[index]


def test_optuna_again(mine: Store, sweep: Shell) -> None:
    """Nothing is doubled; an unchanged sweep leaves the study as it is, one that went on makes it anew."""
    path = sweep.folder / "study.log"

    exported(sweep, mine, f"optuna:{path}")
    first, before = path.read_bytes(), loaded(path, mine.sweep_id).get_trials()
    exported(sweep, mine, f"optuna:{path}")
    assert path.read_bytes() == first
    mine.write_plan(len(before), sat("new"))
    mine.write_plan(len(before) + 1, sat("begun"))
    mine.write_epochs("begun", [{"number": len(before) + 1, "epoch": 1, "train_accuracy": 0.25}])
    mine.write_plan(len(before) + 2, sat("bad"))
    failed = {"number": len(before) + 2, "key": "bad", "state": "FAILED", "error": "diverged", "started": "2026-11-20"}
    mine.commit_trial(failed)
    exported(sweep, mine, f"optuna:{path}")
    *old, new, begun, bad = loaded(path, mine.sweep_id).get_trials()
    assert [(one.number, one.value, one.params) for one in old] == [(o.number, o.value, o.params) for o in before]
    assert (new.state, begun.state, bad.state) == (TrialState.WAITING, TrialState.RUNNING, TrialState.FAIL)
    assert begun.intermediate_values == {1: 0.25}
    assert bad.user_attrs["error"] == "diverged"


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_the_real_dashboard_shows_it(mine: Store, sweep: Shell) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    url = f"sqlite:///{sweep.folder}/study.db"
    exported(sweep, mine, f"optuna:{url}")
    with make_server("127.0.0.1", 0, dashboard.wsgi(url), handler_class=Quiet) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()

        def asked(path: str) -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/api/{path}", timeout=60) as answer:
                return json.load(answer)

        (study,) = asked("studies")["study_summaries"]
        detail = asked(f"studies/{study['study_id']}")
        server.shutdown()
        thread.join()
    assert (study["study_name"], study["directions"]) == (mine.sweep_id, ["maximize"])
    assert [trial["state"] for trial in detail["trials"]] == ["Complete"] * len(detail["trials"])
    values = {one["number"]: one["value"] for one in mine.configurations()}
    assert {trial["number"]: trial["values"][0] for trial in detail["trials"]} == pytest.approx(values)
    assert {param["name"] for param in detail["union_search_space"]} == {"method", "alpha: sampler.alpha"}
    attributes = {held["key"] for held in detail["trials"][0]["user_attrs"]}
    assert {"test/linf", "test/clean", "val/avg_lp", "seeds", "keys"} <= attributes
    assert [held["step"] for held in detail["trials"][0]["intermediate_values"]] == [1, 2]


def test_what_optuna_cannot_take(mine: Store, sweep: Shell) -> None:
    url = f"sqlite:///{sweep.folder}/study.db"
    optuna.create_study(study_name=mine.sweep_id, storage=url)
    sweep_id = mine.sweep_id
    assert "no export of this sweep" in sweep.refused("export", sweep_id, "--to", f"optuna:{url}")
    assert "cannot export to the Optuna storage" in sweep.refused(
        "export", sweep_id, "--to", "optuna:sqlite:////no/x.db"
    )
    (sweep.folder / "thesis.tex").write_text("years of work\n")
    assert "got another file" in sweep.refused("export", sweep_id, "--to", f"optuna:{sweep.folder}/thesis.tex")
    said = sweep.refused("export", sweep_id, "--to", "optuna:nonesuch://me:secret@there/x")
    assert "secret" not in said
    assert "me@there" in said
    assert "whole sweep" in sweep.refused("export", f"{sweep_id}/best", "--to", f"optuna:{url}")
    assert "whole sweep" in sweep.refused("export", sweep_id, "--to", f"optuna:{url}", "--seed", "0")


def events(folder: Path) -> Iterator[Any]:
    """Of a TensorBoard folder: records of a length, its check, the event and its check."""
    for path in folder.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_tensorboard(mine: Store, sweep: Shell) -> None:
    board = sweep.folder / "board"
    for _ in range(2):  # again: not doubled
        assert str(board) in exported(sweep, mine, f"tensorboard:{board}")
    held = runs(mine)
    assert len(held) == len(mine.trials()) + 1
    names = {path.name for path in (board / mine.sweep_id).iterdir()}
    assert names == {run.name for run in held} | {"export.json"}
    linf, epochs = accuracy(mine, "test", "linf"), mine.epochs().to_pylist()
    for run in held:
        found = [value for event in events(board / mine.sweep_id / run.name) for value in event.summary.value]
        steps = [event.step for event in events(board / mine.sweep_id / run.name) for _ in event.summary.value]
        scalars = [
            (value.tag, step) for value, step in zip(found, steps, strict=True) if value.HasField("simple_value")
        ]
        assert len(set(scalars)) == len(scalars)
        values = {(value.tag, step): value.simple_value for value, step in zip(found, steps, strict=True)}
        key = run.row["key"] if run.epochs else run.results[0]["trial"]
        last = len(run.epochs)
        assert values["test/linf", last] == pytest.approx(linf[key])
        for row in (row for row in epochs if row["trial"] == key):
            assert values["epochs/train_loss", row["epoch"]] == pytest.approx(row["train_loss"])
            for attack, loss in json.loads(row["losses"]).items():
                assert values[f"epochs/losses/{attack}", row["epoch"]] == pytest.approx(loss)
        assert "_hparams_/session_start_info" in {value.tag for value in found}
    (board / mine.sweep_id / "notes.txt").write_text("mine")
    assert "notes.txt" in sweep.refused("export", mine.sweep_id, "--to", f"tensorboard:{board}")


@pytest.mark.filterwarnings("ignore")  # MLflow's own, of SQLAlchemy
def test_mlflow(mine: Store, sweep: Shell) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{sweep.folder}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)

    def stored() -> dict[str, Any]:
        found = client.search_runs([client.get_experiment_by_name(mine.sweep_id).experiment_id])
        named = {run.data.tags["sweep.run"]: run for run in found}
        assert len(named) == len(found)
        return named

    exported(sweep, mine, f"mlflow:{uri}")
    first, held = stored(), runs(mine)
    assert first.keys() == {run.id for run in held}
    linf = accuracy(mine, "test", "linf")
    for run in held[1:]:
        data = first[run.id].data
        assert data.metrics["test/linf"] == linf[run.row["key"]]
        assert data.params["method"] == run.method
        assert first[run.id].info.status == "FINISHED"
        history = client.get_metric_history(first[run.id].info.run_id, "train_loss")
        assert {point.step: point.value for point in history} == {row["epoch"]: row["train_loss"] for row in run.epochs}
    number = max(run.row["number"] or 0 for run in held) + 1
    mine.write_plan(number, sat("new"))
    exported(sweep, mine, f"mlflow:{uri}")
    second = stored()
    assert second.keys() - first.keys() == {f"{number}-0"}
    assert all(second[name].info.run_id == run.info.run_id for name, run in first.items())


def records(path: Path) -> Iterator[Any]:
    """Of a W&B file of one block: a head of 7 bytes, then each record's check, length, kind (1: whole) and bytes."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()[7:]
    while data:
        length, kind = struct.unpack("<HB", data[4:7])
        assert kind == 1
        yield wandb_internal_pb2.Record.FromString(data[7 : 7 + length])
        data = data[7 + length :]


def test_wandb(mine: Store, sweep: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(sweep.folder))
    assert exported(sweep, mine, "wandb:adversarial").startswith(f"wandb sync {sweep.folder}/wandb/offline-run-*")
    held, linf = runs(mine), accuracy(mine, "test", "linf")
    files = list((sweep.folder / "wandb").glob("offline-run-*/*.wandb"))
    assert {path.stem for path in files} == {f"run-{mine.sweep_id}-{run.id}" for run in held}
    for run in held[1:]:
        (path,) = (path for path in files if path.stem.endswith(f"-{run.id}"))
        told = list(records(path))
        about = next(record.run for record in told if record.HasField("run"))
        assert (about.run_group, about.project, about.display_name) == (mine.sweep_id, "adversarial", run.name)
        losses = [
            float(item.value_json)
            for record in told
            if record.HasField("history")
            for item in record.history.item
            if "train_loss" in (item.key, *item.nested_key)
        ]
        assert losses == [row["train_loss"] for row in run.epochs]
        summary = [item for record in told if record.HasField("summary") for item in record.summary.update]
        (last,) = (item for item in summary if "test/linf" in (item.key, *item.nested_key))
        assert float(last.value_json) == linf[run.row["key"]]


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_not_there(mine: Store, sweep: Shell, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = sweep.refused("export", mine.sweep_id, "--to", f"{package}:x")
    assert said.endswith(f"pip install 'adversarial-sweep[{package}]'")


def test_a_folder_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nonesuch").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="is a folder here"):
        needed("nonesuch")
