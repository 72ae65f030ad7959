"""Every method of the catalogue trains, and goes on after a stop with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from trainer_toys import flat_prior, ones, same, toy_attacks, toy_images, toy_net

from attacks import Attack
from trainers import methods
from trainers.averaging.ema import snapshot
from trainers.checkpoint import Folder
from trainers.loop import Fitted, fit
from trainers.methods import CATALOGUE
from trainers.parts import Method
from trainers.recipe import Recipe

NAMES = [*CATALOGUE, "cas+ema", "avg+ab-l1", "max+ab-l2", "msd+ab-l2", "ramp+ramp", "trades+mde"]


def parts_of(name: str) -> Method:
    """The method with the settings that its paper states, but weights from the first epoch on."""
    found = methods.entry(name)
    parts: dict[str, dict[str, object]] = {kind: {"name": part} for kind, part in found.parts().items()}
    for address, value in found.settings.items():
        section, _, key = address.partition(".")
        if section in parts:
            parts[section][key] = value
    if found.weighting != "none":
        parts["weighting"]["burn_in"] = 0.0
    return methods.compose(parts)


def attacks_of(name: str) -> dict[str, Attack]:
    return toy_attacks(*(methods.entry(name).train or ("linf", "pgd-l2", "fog")), steps=2)


def train(name: str, until: int, folder: Path | None = None, epochs: int = 3) -> Fitted:
    """Three batches an epoch, stopped after some of the epochs."""
    made, of, images = parts_of(name), attacks_of(name), toy_images(24)
    prior = flat_prior(images, of) if made.sampler.needs_prior else None
    recipe = Recipe(epochs=epochs, batch_size=8, lr=0.05, schedule="constant")
    files = None if folder is None else Folder(folder)
    return fit(
        toy_net(), images, of, made, recipe, importance=ones(of), seed=0, prior=prior, files=files,
        report=lambda epoch, history: epoch < until,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_training_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    whole = train(name, 3)
    assert not train(name, 1, tmp_path).finished
    resumed = train(name, 3, tmp_path)
    assert resumed.finished
    assert same(snapshot(whole.model), snapshot(resumed.model))
    assert same(whole.averaged, resumed.averaged)
    assert [row["train_loss"] for row in whole.history] == [row["train_loss"] for row in resumed.history]


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name: str) -> None:
    history = train(name, 8, epochs=8).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert all(torch.tensor(row["train_loss"]).isfinite() for row in history)
