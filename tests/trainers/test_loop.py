"""The one training loop: it learns, it resumes to the last bit, and it draws the same whoever does the work."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from trainer_toys import (
    Biased,
    flat_prior,
    method,
    ones,
    same,
    told,
    toy_attacks,
    toy_images,
    toy_net,
    tune,
)

from attacks import Attack, View
from attacks.errors import InputError
from trainers.checkpoint import Folder
from trainers.data import ImageSet
from trainers.evaluate import correct_by_attack
from trainers.loop import Fitted, Look, probe_size, split_batches
from trainers.objectives.ce import CrossEntropy
from trainers.parts import Batch, Loss, State
from trainers.recipe import Recipe
from trainers.step import Diverged, Step
from trainers.tradeoff import measure
from trainers.weightings.none import Equal
from trainers.workers import Workers

RECIPE = Recipe(epochs=3, batch_size=16, lr=0.05, crop_padding=1, flip=True)


def test_the_loss_falls() -> None:
    recipe = Recipe(epochs=6, batch_size=16, lr=0.1)
    fitted = tune("sat", toy_net(), toy_images(96), toy_attacks("pgd-l2", "hsv"), recipe)
    losses = [record["train_loss"] for record in fitted.history]
    assert losses[-1] < 0.6 * losses[0]
    assert fitted.history[-1]["train_accuracy"] > fitted.history[0]["train_accuracy"] + 0.2
    assert fitted.finished


def run(
    name: str,
    files: Folder | None,
    report: Callable[..., bool] | None = None,
    recipe: Recipe = RECIPE,
    look: Look | None = None,
) -> Fitted:
    """A run of three epochs from the same model, with a prior that tells the attacks apart."""
    train, of = toy_images(), toy_attacks("linf", "pgd-l2", "hsv")
    prior = flat_prior(train, of)
    prior.accuracy[0] = 0.1
    return tune(name, toy_net(), train, of, recipe, files=files, report=report, look=look, prior=prior, seed=5)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("cas", RECIPE),
        ("sat", RECIPE),
        ("e-at", RECIPE),
        ("sat+ema", RECIPE),
        ("sat", Recipe(name="adam", epochs=3, batch_size=16, lr=0.001)),
        ("cas", Recipe(epochs=3, batch_size=16, lr=0.05, fixed_batches=True, bn="joint", schedule="one-cycle")),
    ],
)
def test_a_run_resumed_after_any_epoch_equals_an_undisturbed_one_to_the_last_bit(
    name: str, recipe: Recipe, tmp_path: Path
) -> None:
    whole = run(name, None, recipe=recipe)
    for stop in range(1, recipe.epochs):
        files = Folder(tmp_path / str(stop))
        part = run(name, files, lambda epoch, history, stop=stop: epoch < stop, recipe)
        assert not part.finished
        assert not same(part.model.state_dict(), whole.model.state_dict())
        rest = run(name, files, recipe=recipe)
        assert rest.finished
        assert same(rest.model.state_dict(), whole.model.state_dict())
        assert same(rest.averaged, whole.averaged)
        assert told(rest.history) == told(whole.history)


def test_the_gain_from_training_accuracies_resumes_too(tmp_path: Path) -> None:
    train, of, files = toy_images(), toy_attacks("pgd-l2", "hsv"), Folder(tmp_path)

    def go(where: Folder | None, stop: int = 9) -> Fitted:
        made = method("sat+mde", averaging={"gain": "train"})
        return tune("", toy_net(), train, of, RECIPE, method=made, files=where, report=lambda epoch, _: epoch < stop)

    whole = go(None)
    go(files, stop=1)
    rest = go(files)
    assert same(rest.averaged, whole.averaged)
    assert told(rest.history) == told(whole.history)


def test_a_run_without_checkpoints_equals_one_with_them(tmp_path: Path) -> None:
    assert same(run("cas", None).model.state_dict(), run("cas", Folder(tmp_path)).model.state_dict())


def test_whoever_looks_sees_each_epoch_and_changes_nothing(tmp_path: Path) -> None:
    """And again the one that a run goes on from."""
    looks: list[tuple[int, State, State]] = []

    def look(epoch: int, model: nn.Module, averaged: State | None) -> None:
        assert averaged is not None
        looks.append((epoch, copy.deepcopy(model.state_dict()), copy.deepcopy(averaged)))

    whole = run("sat+ema", None)
    part = run("sat+ema", Folder(tmp_path), lambda epoch, _: epoch < 2, look=look)
    assert [epoch for epoch, *_ in looks] == [1, 2]
    assert same(looks[1][1], part.model.state_dict())
    rest = run("sat+ema", Folder(tmp_path), look=look)
    assert [epoch for epoch, *_ in looks] == [1, 2, 2, 3]
    assert same(looks[1][1], looks[2][1])
    assert same(looks[1][2], looks[2][2])
    assert same(looks[3][1], rest.model.state_dict())
    assert same(rest.model.state_dict(), whole.model.state_dict())
    assert told(rest.history) == told(whole.history)


def test_a_damaged_newest_checkpoint_costs_one_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, files = run("cas", None), Folder(tmp_path)
    run("cas", files, lambda epoch, history: epoch < 2)
    weights = tmp_path / "2" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done: list[int] = []

    def report(epoch: int, history: list[dict[str, Any]]) -> bool:
        done.append(epoch)
        return True

    with caplog.at_level(logging.WARNING):
        rest = run("cas", files, report)
    assert "epoch 2 does not verify" in caplog.text
    assert done == [1, 2, 3], "the epoch that it goes on from is told again"
    assert same(rest.model.state_dict(), whole.model.state_dict())


def test_a_finished_run_is_not_run_again_but_told_again(tmp_path: Path) -> None:
    """It may have been killed between its last checkpoint and its last report."""
    files, heard = Folder(tmp_path), []
    first = run("sat+ema", files)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def report(epoch: int, history: list[dict[str, Any]]) -> bool:
        heard.append((epoch, len(history)))
        return True

    again = run("sat+ema", files, report)
    assert heard == [(3, 3)]
    assert again.finished
    assert same(again.model.state_dict(), first.model.state_dict())
    assert same(again.averaged, first.averaged)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written


def test_a_checkpoint_of_other_work_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    train, of, files = toy_images(), toy_attacks("pgd-l2"), Folder(tmp_path)
    tune("sat", toy_net(), train, of, RECIPE, files=files)
    for name, model, more, message in (
        ("sat", toy_net(classes=4), {}, r"with model/linear.weight of \(4, 16\), got shape \(3, 16\)"),
        ("sat+ema", toy_net(), {}, "averaging/.*, got none"),
        ("cas", toy_net(), {}, "sampler/.*, got none"),
        ("sat", toy_net(), {"seed": 1}, "with seed 1, got seed 0"),
    ):
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(InputError, match=message):
            tune(name, model, train, of, RECIPE, files=files, **more)
        assert same(model.state_dict(), before)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_a_loss_that_is_no_number_ends_the_run_before_it_reaches_the_weights() -> None:
    model = Biased(0.0, math.nan, 0.0)
    with pytest.raises(Diverged, match="epoch 0, step 0"):
        tune("sat", model, toy_images(), toy_attacks("pgd-l2"), RECIPE)
    assert model.bias.tolist() == pytest.approx([0.0, math.nan, 0.0], nan_ok=True)
    model = Biased(0.0, 1e30, -1e30)
    before = weights_of(model)
    with pytest.raises(Diverged):  # the first step's loss is finite, its update is not survivable
        tune("sat", model, toy_images(), toy_attacks("pgd-l2"), Recipe(epochs=1, batch_size=16, lr=1e38))
    assert not same(weights_of(model), before)


def test_weights_that_the_last_step_ruined_are_not_saved(tmp_path: Path) -> None:
    """10 + weight decay of 1e3 * 10 at lr 1e38 is infinite; the loss before the step is not."""
    recipe = Recipe(epochs=2, batch_size=48, lr=1e38, weight_decay=1e3, schedule="constant")
    with pytest.raises(Diverged, match="at the end of epoch 0"):
        tune("sat", Biased(10.0, 0.0, 0.0), toy_images(), toy_attacks("pgd-l2"), recipe, files=Folder(tmp_path))
    assert Folder(tmp_path).names("") == []


def test_one_layer_that_gives_nan_leaves_the_weights(tmp_path: Path) -> None:
    model = toy_net()
    with torch.no_grad():
        model.get_parameter("linear.weight")[0, 0] = math.inf
    before = weights_of(model)
    with pytest.raises(Diverged):
        tune("cas+none", model, toy_images(), toy_attacks("pgd-l2"), RECIPE)
    assert same(weights_of(model), before)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(2, 64), st.integers(0, 5), st.integers(0, 3))
def test_batches_cover_every_image_once(n: int, batch_size: int, seed: int, epoch: int) -> None:
    batches = split_batches(n, batch_size, seed, epoch)
    sizes = [len(index) for index in batches]
    assert sorted(torch.cat(batches).tolist()) == list(range(n))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == math.ceil(n / batch_size)


def test_batches_differ_between_epochs_and_seeds_but_not_between_calls() -> None:
    first = torch.cat(split_batches(100, 10, seed=0, epoch=0))
    assert torch.equal(torch.cat(split_batches(100, 10, seed=0, epoch=0)), first)
    assert not torch.equal(torch.cat(split_batches(100, 10, seed=0, epoch=1)), first)
    assert not torch.equal(torch.cat(split_batches(100, 10, seed=1, epoch=0)), first)


class Stopped(Exception):
    pass


class Recorder:
    """An inner that notes the seeds and views of its share, and ends there."""

    def __init__(self) -> None:
        self.seeds: list[Tensor] = []
        self.x: list[Tensor] = []

    def views(
        self, model: nn.Module, batch: Batch, attacks: Sequence[Attack], loss: Loss | None, seeds: Tensor
    ) -> list[View]:
        self.seeds.append(seeds)
        self.x.append(attacks[0].run(model, batch.x, batch.y, seeds=seeds).x)
        raise Stopped


@pytest.mark.parametrize("count", [2, 3])
def test_draws_do_not_depend_on_the_number_of_workers(count: int) -> None:
    train, (fog,) = toy_images(), toy_attacks("fog").values()
    model, index = toy_net().eval(), torch.randperm(48, generator=torch.Generator().manual_seed(0))[:13]

    def work(workers: Workers, recorder: Recorder) -> Tensor:
        parts = (recorder, CrossEntropy(), Equal())
        step = Step(model, model, torch.optim.SGD(model.parameters()), *parts, train, RECIPE, 3, workers)
        batch = step.batch(index, 2, 0)
        with pytest.raises(Stopped):
            step(batch, [fog])
        return batch.x

    one, several = Recorder(), Recorder()
    x = work(Workers(), one)
    shares = [work(Workers(rank, count), several) for rank in range(count)]
    assert torch.equal(torch.cat(shares), x)
    assert torch.equal(torch.cat(several.seeds), one.seeds[0])
    assert torch.allclose(torch.cat(several.x), one.x[0], atol=1e-6)
    assert len(set(one.seeds[0].tolist())) == 13


class Counted(nn.Module):
    """Counts the forwards of the network in it, those in train mode apart."""

    def __init__(self) -> None:
        super().__init__()
        self.net = toy_net()
        self.forwards = {True: 0, False: 0}

    def forward(self, x: Tensor) -> Tensor:
        self.forwards[self.training] += 1
        logits: Tensor = self.net(x)
        return logits


@pytest.mark.parametrize(("attack", "attacked"), [("linf", 3), ("pgd-l2", 2), ("hsv", 2)])
def test_cas_costs_a_batch_what_sat_costs(attack: str, attacked: int) -> None:
    """2 steps: two forwards, APGD one more; then one in train mode. 48 images are three batches."""
    spent = {}
    for name in ("sat", "cas+none", "e-at", "sat+ema", "cas"):
        model = Counted()
        tune(name, model, toy_images(), toy_attacks(attack, steps=2), Recipe(epochs=1, batch_size=16, lr=0.01))
        spent[name] = dict(model.forwards)
    for name in ("sat", "cas+none", "e-at", "sat+ema"):
        assert spent[name] == {True: 3, False: 3 * attacked}
    # MDE's probe, before and after the epoch: the attack and one verdict on one batch
    assert spent["cas"] == {True: 3, False: 3 * attacked + 2 * (attacked + 1)}


def test_a_resumed_run_does_not_probe_again_what_it_saved(tmp_path: Path) -> None:
    of, recipe = toy_attacks("pgd-l2"), Recipe(epochs=2, batch_size=16, lr=0.01)
    tune("cas", Counted(), toy_images(), of, recipe, files=Folder(tmp_path), report=lambda epoch, _: epoch < 1)
    model = Counted()
    tune("cas", model, toy_images(), of, recipe, files=Folder(tmp_path))
    assert model.forwards == {True: 3, False: 3 * 1 + (1 + 1)}


def test_the_probe_is_the_same_images_with_the_same_noise() -> None:
    """A learning rate of 0 and no batch norm: nothing changes, so the gain is exactly 0."""
    model = Biased(0.1, 0.0, 0.0)
    recipe = Recipe(epochs=2, batch_size=16, lr=0.0)
    made = method("sat+mde", averaging={"horizon": 0})
    fitted = tune("", model, toy_images(), toy_attacks("fog", "hsv"), recipe, method=made)
    assert [(record["gain"], record["decay"]) for record in fitted.history] == [(0.0, 0.95)] * 2


def test_the_gain_is_that_of_the_whole_training_set_where_the_probe_takes_it_all() -> None:
    train, of, model = toy_images(24), toy_attacks("pgd-l2", "hsv"), toy_net()
    assert probe_size(24, 40) == 24
    before = correct_by_attack(model, train, of, seed=0).double().mean(1)
    fitted = tune("sat+mde", model, train, of, Recipe(epochs=1, batch_size=8, lr=0.1))
    change = correct_by_attack(model, train, of, seed=0).double().mean(1) - before
    assert fitted.history[0]["gain"] == pytest.approx(float(change.mean()))
    assert fitted.history[0]["gain_stderr"] == pytest.approx(float(change.std() / 24**0.5))


def test_records_say_what_happened() -> None:
    train, of = toy_images(), toy_attacks("pgd-l2", "hsv")
    heard: list[int] = []

    def report(epoch: int, history: list[dict[str, Any]]) -> bool:
        heard.append(epoch)
        assert len(history) == epoch
        return True

    recipe = Recipe(epochs=3, batch_size=16, lr=0.3, weight_decay=0.0)
    fitted = tune("sat", toy_net(), train, of, recipe, report=report)
    assert heard == [1, 2, 3]
    assert [record["epoch"] for record in fitted.history] == [1, 2, 3]
    # the rate of the last step, whose end is the end of a third
    assert [record["lr"] for record in fitted.history] == pytest.approx([0.03, 0.003, 0.003])
    for record in fitted.history:
        assert record["probabilities"] == {"pgd-l2": 0.5, "hsv": 0.5}
        assert sum(record["counts"].values()) == 3
        assert set(record["counts"]) == set(record["robust"]) == set(record["losses"])
        mean = sum(record["counts"][name] * record["losses"][name] for name in record["counts"]) / 3
        assert record["train_loss"] == pytest.approx(mean)
        assert 0 < record["seconds_attack"] + record["seconds_train"] < record["seconds"]


def test_global_random_state_does_not_matter_and_is_not_moved() -> None:
    torch.manual_seed(1)
    first = run("cas", None)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert same(run("cas", None).model.state_dict(), first.model.state_dict())
    assert torch.equal(torch.get_rng_state(), state)


def test_another_seed_is_another_run() -> None:
    train, of = toy_images(), toy_attacks("pgd-l2")
    one, two = (tune("sat", toy_net(), train, of, RECIPE, seed=seed).model.state_dict() for seed in (0, 1))
    assert not same(one, two)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"importance": {"pgd-l2": 1.0}}, "importance weight >= 0 of every attack"),
        ({"importance": {"pgd-l2": 0.0, "hsv": 0.0}}, "importance weight"),
        ({"importance": {"pgd-l2": -1.0, "hsv": 1.0}}, "importance weight"),
        ({"importance": {"pgd-l2": math.nan, "hsv": 1.0}}, "importance weight"),
        ({"prior": flat_prior(toy_images(30), toy_attacks("pgd-l2", "hsv"))}, "prior over 48 training images"),
        ({"workers": Workers(0, 1000)}, "an image for each of 1000 workers"),
    ],
)
def test_what_makes_no_sense_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tune("cas", toy_net(), toy_images(), toy_attacks("pgd-l2", "hsv"), RECIPE, **more)


def test_attacks_are_refused_where_there_are_none_or_under_another_name() -> None:
    (hsv,) = toy_attacks("hsv").values()
    for of in ({}, {"colour": hsv}):
        with pytest.raises(InputError, match="attack"):
            tune("sat", toy_net(), toy_images(), of, RECIPE)


def golden(name: str) -> list[float]:
    """The losses of five steps: as many epochs of one batch. Softplus, since rounding at a ReLU's corner turns an
    attack: between two implementations of a convolution the losses differ by some per cent, with softplus by 5e-7."""
    train, of = toy_images(24, size=16), toy_attacks("linf", "pgd-l2", "fog", "hsv", steps=2)
    recipe = Recipe(epochs=5, batch_size=24, lr=0.02, crop_padding=2, flip=True, schedule="constant")
    model = toy_net(activation="softplus")
    prior = measure(model, train, of, recipe, seed=0) if name == "cas" else None
    fitted = tune(name, model, train, of, recipe, prior=prior, importance=ones(of) | {"linf": 2.0, "pgd-l2": 2.0})
    return [record["train_loss"] for record in fitted.history]


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("sat", [1.140621, 1.114344, 1.046605, 0.982041, 0.910011]),
        ("cas", [1.140621, 1.087821, 1.069617, 0.98812, 0.917363]),
    ],
)
def test_golden_losses(name: str, losses: list[float]) -> None:
    """fp32 on a CPU, torch 2.13. A change that should not alter numbers leaves these alone."""
    assert golden(name) == pytest.approx(losses, rel=1e-4)


def test_the_data_may_be_a_subset_whose_ids_are_not_its_places() -> None:
    train, of = toy_images(96), toy_attacks("pgd-l2")
    part = train.subset(torch.arange(40, 88))
    renumbered = ImageSet(part.images, part.labels, torch.arange(48))
    one, two = (tune("sat", toy_net(), images, of, RECIPE).model.state_dict() for images in (part, renumbered))
    assert not same(one, two)  # noise follows the image's id
