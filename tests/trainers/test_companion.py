"""The companion run that an averaging may ask for, through fit()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn
from trainer_toys import method, ones, toy_attacks, toy_images, toy_net

from attacks.errors import InputError
from trainers import methods
from trainers.averaging.ema import snapshot
from trainers.averaging.none import Live
from trainers.loop import fit
from trainers.parts import Gain, State
from trainers.recipe import Recipe

RECIPE = Recipe(epochs=1, batch_size=16, lr=0.05)


class TakesTheCompanion(Live):
    """Feeds the clean companion back and remembers what it was given."""

    companions: ClassVar[Sequence[str]] = ("clean",)

    def after_epoch(
        self, old: State, live: State, companions: Mapping[str, State], gain: Gain | None, warm_up: bool
    ) -> State | None:
        self.old, self.live = old, live
        return companions["clean"]


def train(of: methods.Method) -> nn.Module:
    attacks = toy_attacks("linf")
    return fit(toy_net(), toy_images(), attacks, of, RECIPE, importance=ones(attacks), seed=3).model


def test_the_clean_companion_is_an_epoch_of_standard_training_from_the_same_start() -> None:
    averaging = TakesTheCompanion()
    fed_back = snapshot(train(replace(method("sat"), averaging=averaging)))
    natural = methods.compose(
        {kind: {"name": name} for kind, name in methods.entry("sat").parts().items()} | {"inner": {"name": "natural"}}
    )
    expected = snapshot(train(natural))
    for name, value in expected.items():
        torch.testing.assert_close(fed_back[name], value, rtol=0, atol=0)
    adversarial = snapshot(train(method("sat")))
    assert all(torch.equal(averaging.live[name], value) for name, value in adversarial.items())
    assert all(torch.equal(averaging.old[name], value) for name, value in snapshot(toy_net()).items())


def test_an_unknown_companion_is_refused() -> None:
    averaging = TakesTheCompanion()
    averaging.companions = ("clena",)  # type: ignore[misc]
    with pytest.raises(InputError, match="unknown companion 'clena': did you mean 'clean'"):
        train(replace(method("sat"), averaging=averaging))
