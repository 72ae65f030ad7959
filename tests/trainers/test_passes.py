"""Exact counts of what a training runs."""

from __future__ import annotations

import pytest
from trainer_toys import toy_attacks, toy_images, toy_net, tune

from trainers.recipe import Recipe


@pytest.mark.parametrize(
    ("attack", "forwards", "backwards"),
    [("pgd-l2", 3 + 1, 3 + 1), ("linf", 3 + 1 + 1, 3 + 1), ("fog", 3 + 1, 3 + 1)],
)
def test_passes_for_each_training_image(attack: str, forwards: int, backwards: int) -> None:
    """Three attack steps (APGD looks once more, without a gradient) and the training step."""
    recipe = Recipe(epochs=2, batch_size=16)
    fitted = tune("sat", toy_net(), toy_images(40), toy_attacks(attack, steps=3), recipe)
    assert [(row["forwards"], row["backwards"]) for row in fitted.history] == [(forwards, backwards)] * 2


def test_the_model_keeps_no_hook() -> None:
    model = toy_net()
    tune("sat", model, toy_images(16), toy_attacks("fog"), Recipe(epochs=1, batch_size=16))
    assert not model._forward_hooks
