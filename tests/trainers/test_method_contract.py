"""What every method of the catalogue keeps to: it trains, it goes on after a stop with the same bits, and what it is
told wrongly it refuses. What it costs: test_method_passes.py; what its parts do: the tests of each part."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_toys import NAMES, RECIPE, SmallNet, parts_of, train, uneven_prior
from safetensors.torch import load, save
from trainer_toys import batch_of, same, seen, told, toy_attacks, toy_images

from attacks.errors import InputError
from trainers import methods
from trainers.averaging.ema import snapshot
from trainers.checkpoint import Folder
from trainers.loop import Fitted
from trainers.methods import ADAPTIVE, CATALOGUE
from trainers.parts import PARTS, Gain, Sampler, averagings, samplers

AVERAGINGS = ("none", "ema", "mde", "ramp")
BATCH = batch_of([0, 3], warm_up=False)
SCALED_DOWN = ("vir-at", "mail-at")
"""Weights that are not normalised, here far below 1, make the learning rate so much smaller."""


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name: str) -> None:
    history = train(name, replace(RECIPE, epochs=6), images=toy_images(24)).history
    first, last = history[0]["train_loss"], history[-1]["train_loss"]
    assert last < (0.995 if name in SCALED_DOWN else 0.8) * first


@pytest.mark.parametrize("name", NAMES)
def test_resumed_after_any_epoch_it_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    recipe, files = replace(RECIPE, epochs=3), tmp_path / "run"

    def keep(epoch: int, history: list[dict[str, Any]]) -> bool:
        shutil.copytree(files, tmp_path / str(epoch))
        return True

    whole = train(name, recipe, files=Folder(files), report=keep)
    for epoch in (1, 2, 3):
        rest = train(name, recipe, files=Folder(tmp_path / str(epoch)))
        assert same(snapshot(rest.model), snapshot(whole.model))
        assert same(rest.averaged, whole.averaged)
        assert told(rest.history) == told(whole.history)


def first_epoch(name: str, averaging: str) -> Fitted:
    made = parts_of(f"{name}+{averaging}")
    return train(name, replace(RECIPE, epochs=1), method=made)


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_averaging_changes_what_is_reported_and_not_the_epoch_before_it(name: str) -> None:
    fitted = {averaging: first_epoch(name, averaging) for averaging in AVERAGINGS}
    losses = {made.history[0]["train_loss"] for made in fitted.values()}
    assert len(losses) == 1
    assert [made.averaged is None for made in fitted.values()] == [True, False, False, True]
    live = snapshot(fitted["none"].model)
    for averaging, unchanged in (("ema", True), ("mde", True), ("ramp", False)):
        assert same(snapshot(fitted[averaging].model), live) == unchanged


def made_or_refused(name: str) -> methods.Entry | str:
    try:
        return methods.entry(name)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("adaptive", ADAPTIVE)
@pytest.mark.parametrize("averaging", AVERAGINGS)
def test_two_modifiers_compose_in_any_order_or_are_refused_in_a_line(name: str, adaptive: str, averaging: str) -> None:
    one, other = (made_or_refused(f"{name}+{a}+{b}") for a, b in ((adaptive, averaging), (averaging, adaptive)))
    if isinstance(one, methods.Entry):
        assert one == other
        made = parts_of(f"{name}+{adaptive}+{averaging}")
        assert type(made.averaging) is averagings.get(averaging)
        assert made.inner.adaptive == ADAPTIVE[adaptive]  # type: ignore[attr-defined]
    else:
        assert isinstance(other, str)
        assert "\n" not in one + other
        assert "runs one or none" in one
        assert CATALOGUE[name].inner in ("single", "natural")


@pytest.mark.parametrize(("kind", "part"), [(kind, part) for kind, known in PARTS.items() for part in known.names()])
def test_a_misspelled_hyper_parameter_is_refused_with_the_right_one(kind: str, part: str) -> None:
    parts: dict[str, dict[str, Any]] = {k: {"name": v} for k, v in methods.entry("sat").parts().items()}
    for field in fields(PARTS[kind].get(part)):
        wrong = f"{field.name}x"
        with pytest.raises(InputError, match=f"of {kind} {part} '{wrong}': did you mean '{field.name}'"):
            methods.compose(parts | {kind: {"name": part, wrong: 1}})
    with pytest.raises(InputError, match=f"unknown {kind} '{part}x': did you mean '{part}'"):
        methods.compose(parts | {kind: {"name": f"{part}x"}})


def restarted(name: str) -> Sampler:
    made, of = samplers.get(name)(), toy_attacks("linf", "fog", "hsv")
    weights = {"linf": 2.0, "fog": 1.0, "hsv": 1.0}
    made.start(list(of), weights, uneven_prior(toy_images(6), of) if made.needs_prior else None)
    return made


@pytest.mark.parametrize("name", samplers.names())
def test_a_sampler_read_back_from_bytes_chooses_the_same(name: str) -> None:
    one, other, rng = restarted(name), restarted(name), np.random.default_rng(0)
    before = other.probabilities(BATCH)
    for _ in range(14):
        names = one.choose(BATCH, rng)
        one.observe(BATCH, [seen(a, rng.random(2).tolist(), rng.integers(0, 2, 2).tolist()) for a in names])
    other.load_state_dict(load(save(one.state_dict())))
    assert other.probabilities(BATCH) == one.probabilities(BATCH)
    assert other.record() == one.record()
    assert (other.probabilities(BATCH) == before) == (one.state_dict() == {})  # it had something to read
    for seed in range(5):
        choices = [made.choose(BATCH, np.random.default_rng(seed)) for made in (one, other)]
        assert choices[0] == choices[1]


@pytest.mark.parametrize("name", averagings.names())
def test_an_averaging_read_back_from_bytes_goes_on_the_same(name: str) -> None:
    one, other, model = averagings.get(name)(), averagings.get(name)(), SmallNet()
    old, found = snapshot(model), []
    for made in (one, other):
        made.start(model, 2, 5)
    with torch.no_grad():
        model.linear.weight.add_(0.1)
    one.after_step(model)
    one.after_epoch(old, snapshot(model), {"clean": old}, Gain(0.004, 0.0), True)
    other.load_state_dict(load(save(one.state_dict())))
    with torch.no_grad():
        model.linear.weight.mul_(2)
    for made in (one, other):
        made.after_step(model)
        found.append(made.after_epoch(old, snapshot(model), {"clean": old}, Gain(0.004, 0.0), False))
    assert same(found[0], found[1])
    assert same(one.weights(), other.weights())
    assert one.record() == other.record()


def test_inners_objectives_and_weightings_have_nothing_to_remember() -> None:
    """A checkpoint has no place for it."""
    for kind in ("inner", "objective", "weighting"):
        assert not [part for part in PARTS[kind].names() if hasattr(PARTS[kind].get(part), "state_dict")]
