"""The robust starting model: adversarial pre-training under one norm."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from attacks import Attack
from attacks.errors import InputError
from trainers import checkpoint, methods
from trainers.checkpoint import Files
from trainers.data import ImageSet
from trainers.loop import Report, fit
from trainers.recipe import Recipe

NORMS = ("linf", "l2", "l1")


@dataclass(frozen=True, kw_only=True)
class Pretraining(Recipe):
    """Training from scratch: first `clean_epochs` on clean images, then `epochs` on one attack of `attack_steps`, each
    under the whole of the schedule. Few data need many clean epochs before adversarial ones get anywhere."""

    epochs: int = 10
    lr: float = 0.1
    schedule: str = "one-cycle"
    clean_epochs: int = 0
    attack_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("clean_epochs", 0), ("attack_steps", 1)):
            if getattr(self, name) < low:
                raise InputError(f"expected {name} >= {low}, got {getattr(self, name)}")


def pretrain(
    model: nn.Module,
    train: ImageSet,
    attack: Attack,
    recipe: Pretraining,
    *,
    seed: int,
    files: Files | None = None,
    report: Report | None = None,
) -> None:
    """Trains `model` in place on the images of `train`, on their device (Madry et al. 2018). With `files`, a killed run
    goes on at its last adversarial epoch."""
    if recipe.clean_epochs and not (files and checkpoint.newest(files)):
        _train(model, train, attack, replace(recipe, epochs=recipe.clean_epochs), "natural", seed, None, None)
    _train(model, train, attack.with_steps(recipe.attack_steps), recipe, "single", seed, files, report)


def _train(
    model: nn.Module,
    train: ImageSet,
    attack: Attack,
    recipe: Recipe,
    inner: str,
    seed: int,
    files: Files | None,
    report: Report | None,
) -> None:
    parts = {kind: {"name": name} for kind, name in methods.entry("sat").parts().items()} | {"inner": {"name": inner}}
    weight = {attack.name: 1.0}
    method = methods.compose(parts)
    fit(model, train, {attack.name: attack}, method, recipe, importance=weight, seed=seed, files=files, report=report)
