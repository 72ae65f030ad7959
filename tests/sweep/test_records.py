"""What a trial records beside its accuracies: classes, worst images, validation on the way. Without Ray."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sweeps import SPACE, planned

import attacks
from attacks.errors import InputError
from sweep import driver, tables, trial, verdicts
from sweep.bits import unpack, unpack_classes
from sweep.candidates import hashed
from sweep.evaluation import Plan
from sweep.layers import resolve
from sweep.settings import nest
from sweep.spec import evaluation_base
from sweep.storage import Storage
from sweep.store import Store
from sweep.trial import Job, Task
from trainers import models
from trainers.data import Dataset, ImageSet, load
from trainers.models import io as weights_io
from trainers.pretrain import Pretraining, pretrain
from trainers.workers import Workers

METHOD, EPOCHS = "sat+ema", 2
Row = dict[str, Any]


def go_on(metrics: Row) -> bool:
    return True


@cache
def start() -> bytes:
    """A network that gets some digits right."""
    model = models.create(num_classes=10, width=2)
    recipe = Pretraining(clean_epochs=4, epochs=1, attack_steps=1, batch_size=32, flip=False, crop_padding=0)
    pretrain(model, load("digits", train_size=400).train, attacks.get("linf", "digits"), recipe, seed=0)
    return weights_io.dumps(model)


class Made:
    """A sweep of one trial in a folder, whose parts are called one by one."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        space = folder / "space.yaml"
        folder.mkdir(exist_ok=True)
        space.write_text(SPACE.format(method=METHOD, epochs=EPOCHS, search="  {}"))
        sweep = resolve(str(space), nest({address.replace("__", "."): value for address, value in settings.items()}))
        self.images: Dataset = driver.load(sweep.trial, None)
        self.init = start()
        self.store = Store(Storage(str(folder / "results")), "s")
        document = json.loads(json.dumps(sweep.model_dump(mode="json")))
        self.store.create({"trials": 1, "dataset": "digits", "spec": document})
        self.job = Job(self.store.storage.uri, "s", document, hashed(self.init), self.images.fingerprint, "")
        task = Task(0, {}, "", 0)
        self.task = Task(0, {}, self.job.key(task.of(sweep)), 0)

    def run(self, report: Callable[[Row], bool] = go_on) -> Row | None:
        outcome = trial.run(self.job, self.task, self.images, self.init, Workers(), report)
        if outcome is not None:
            about = {"number": 0, "key": self.task.key, "method": METHOD, "seed": 0, "replay": False, "params": {}}
            self.store.commit_trial(about | outcome)
        return outcome

    @property
    def weights(self) -> bytes:
        return self.store.folder.read(f"checkpoints/{self.task.key}/model.safetensors")

    def rows(self, split: str = "val") -> dict[tuple[int, str, str], Row]:
        found = [row for row in self.store.results().to_pylist() if row["split"] == split]
        rows = {(row["epoch"], row["weights"], row["attack"]): row for row in found}
        assert len(rows) == len(found), "an epoch was judged twice"
        return rows

    def judged(self) -> set[tuple[int, str]]:
        return {(epoch, weights) for epoch, weights, _ in self.rows()}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("usual"))
    made.run()
    driver.judge_start(made.job, made.init, made.images.test)
    driver.judge_on_test(made.job, made.init, made.images.test, made.task)
    return made


@pytest.fixture(scope="module")
def each(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("each"), evaluation__every=1)
    made.run()
    return made


def verdict_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("n_robust", "robust_bits", "predicted", "mean_loss", "images"))


def test_validation_on_the_way_changes_neither_the_training_nor_its_key(usual: Made, each: Made) -> None:
    assert each.task.key == usual.task.key
    assert each.weights == usual.weights
    final = {at: verdict_of(row) for at, row in usual.rows().items()}
    assert usual.judged() == {(EPOCHS, "averaged")}
    assert final.items() <= {at: verdict_of(row) for at, row in each.rows().items()}.items()


def test_every_epoch_is_judged_with_live_and_averaged_weights(each: Made) -> None:
    assert each.judged() == {(epoch, weights) for epoch in (1, 2) for weights in ("live", "averaged")}
    rows = each.rows()
    assert {attack for *_, attack in rows} == {"clean", "linf", "l1", "blur"}
    assert len({verdict_of(row) for row in rows.values()}) > 4, "the epochs differ"
    assert each.store.weights_of(each.task.key) == "averaged"


def test_a_table_takes_the_last_epoch(usual: Made, each: Made) -> None:
    found = {row["weights"]: row for row in tables.table(each.store, "val")}
    rows = each.rows()
    assert set(found) == {"live", "averaged"}
    for weights, row in found.items():
        assert row["linf"] == rows[EPOCHS, weights, "linf"]["robust_accuracy"]
    assert found["averaged"]["average"] == tables.table(usual.store, "val")[0]["average"]
    scores = tables.scores(each.store, "val")
    assert np.array_equal(scores[each.task.key], tables.scores(usual.store, "val")[usual.task.key])


def test_the_metrics_of_a_trial_are_the_columns_of_its_table(usual: Made) -> None:
    (row,) = usual.store.trials().to_pylist()
    told = {"lp": "avg_lp", "semantic": "avg_semantic", "worst": "union of all"}
    (found,) = (row for row in tables.table(usual.store, "val") if row["weights"] == "averaged")
    columns = {name: found[told.get(name, name)] for name in ("clean", "linf", "l1", "blur", *told)}
    assert json.loads(row["metrics"]) == pytest.approx(columns)
    assert row["value"] == pytest.approx((columns["lp"] + columns["semantic"]) / 2)
    assert 0 < columns["clean"] < 1


def test_what_was_judged_before_a_break_is_not_judged_again(tmp_path: Path, each: Made) -> None:
    """The first ends after epoch 1, as if killed; what epoch 1 lacks is judged from its checkpoint."""
    made = Made(tmp_path / "broken", evaluation__every=1)
    assert made.run(lambda metrics: False) is None
    results = Path(made.store.storage.uri, "s", "parquet", "results")
    gone = results / f"{made.task.key}-epoch-1-val-averaged.parquet"
    gone.unlink()
    before = {path: path.stat().st_mtime_ns for path in results.iterdir()}
    assert len(before) == 1
    made.run()
    assert gone.exists()
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert {at: verdict_of(row) for at, row in made.rows().items()} == {
        at: verdict_of(row) for at, row in each.rows().items()
    }


def test_an_unfinished_trial_is_in_no_table(tmp_path: Path) -> None:
    made = Made(tmp_path / "pruned", evaluation__every=1)
    made.store.write_plan(0, planned(made.task.key, METHOD))
    made.run(lambda metrics: False)
    assert made.judged() == {(1, "live"), (1, "averaged")}
    with pytest.raises(InputError, match="has no results on split 'val': it has none"):
        tables.table(made.store, "val")


def test_robust_is_where_the_class_given_is_the_label(usual: Made, each: Made) -> None:
    for made, split in ((usual, "val"), (usual, "test"), (each, "val")):
        for (*_, attack), row in made.rows(split).items():
            labels = getattr(made.images, split).labels.numpy()
            predicted = unpack_classes(row["predicted"], row["n"])
            assert np.array_equal(predicted == labels, unpack(row["robust_bits"], row["n"]))
            assert (row["labels"] is None) == (attack != "clean")
            if attack == "clean":
                assert np.array_equal(unpack_classes(row["labels"], row["n"]), labels)


def decoded(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def test_the_worst_images_on_test_are_kept_as_pictures(usual: Made) -> None:
    rows, test = usual.store.examples().to_pylist(), usual.images.test
    judged_on_test = [row for row in usual.store.results().to_pylist() if row["split"] == "test"]
    results = {(row["trial"], row["attack"]): row for row in judged_on_test}
    places = {int(image): place for place, image in enumerate(test.ids)}
    assert {row["split"] for row in rows} == {"test"}
    assert {(row["method"], row["weights"]) for row in rows} == {("pretrained", "live"), (METHOD, "averaged")}
    assert {row["attack"] for row in rows} <= {"linf", "l1", "blur"}
    for row in rows:
        judged, place = results[row["trial"], row["attack"]], places[row["image"]]
        clean = unpack(results[row["trial"], "clean"]["robust_bits"], judged["n"])
        assert clean[place]
        assert not unpack(judged["robust_bits"], judged["n"])[place]
        assert row["predicted"] == unpack_classes(judged["predicted"], judged["n"])[place] != row["label"]
        assert row["label"] == int(test.labels[place])
        assert np.array_equal(decoded(row["png"]), test.images[place].numpy())
        if row["attack"] == "linf":
            moved = decoded(row["adversarial_png"]).astype(int) - decoded(row["png"])
            assert 0 < np.abs(moved).max() <= judged["epsilon"] * 255 + 0.5
    for (key, attack), judged in results.items():
        mine = [row for row in rows if (row["trial"], row["attack"]) == (key, attack)]
        broken = results[key, "clean"]["n_robust"] - judged["n_robust"]
        assert [row["rank"] for row in mine] == list(range(1, min(3, broken) + 1))
        losses = [row["loss"] for row in mine]
        assert losses == sorted(losses, reverse=True)
    assert len(rows) > 6


# budgets times a scale


def plan(**more: Any) -> Plan:
    base = evaluation_base({"dataset": "digits", "attacks": ["linf", "fog"], **more})
    blank = torch.zeros(1, dtype=torch.long)
    return Plan(base, "test", ImageSet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), blank, blank), (), 0)


def test_a_scaled_plan_has_every_budget_that_many_times_as_large() -> None:
    usual = plan()
    assert usual.scaled(1.0) is usual
    half = usual.scaled(0.5)
    for name in ("linf", "fog"):
        assert half.base.attack(name).epsilon == pytest.approx(usual.base.attack(name).epsilon / 2)
    assert half.scale == 0.5
    assert len({one.evaluation_id for one in (usual, half, usual.scaled(2.0))}) == 3
    assert verdicts.budget_id(half.base) != verdicts.budget_id(usual.base)


def test_what_judges_in_place_of_a_norm_is_scaled_too() -> None:
    usual = plan(evaluation={"protocol": "autoattack"})
    assert usual.scaled(2.0).base.attack("autoattack-linf").epsilon == 2 * usual.base.attack("autoattack-linf").epsilon


def test_a_budget_of_the_plan_itself_is_scaled() -> None:
    assert plan(epsilons={"linf": 0.04}).scaled(0.5).base.attack("linf").epsilon == pytest.approx(0.02)
    with pytest.raises(InputError, match=r"expected epsilon <= 1, got 200 \(attacks.linf\)"):
        plan().scaled(1000.0)
