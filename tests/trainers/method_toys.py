"""Every method of the catalogue on toys: a small smooth network, two dozen images, three attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from trainer_toys import ones, toy_attacks, toy_images

from attacks import Attack
from trainers import methods
from trainers.data import ImageSet
from trainers.loop import Fitted, fit
from trainers.methods import ADAPTIVE, CATALOGUE
from trainers.parts import PARTS, Method
from trainers.recipe import Recipe
from trainers.tradeoff import Prior

BUDGETS = tuple(f"{name}+{norm}" for name in ("avg", "max", "msd") for norm in ADAPTIVE)
NAMES = (*CATALOGUE, *BUDGETS, "cas+none", "cas+ema", "sat+mde", "ramp+ramp")
RECIPE = Recipe(epochs=5, batch_size=12, lr=0.05, schedule="constant")
"""Two batches an epoch."""


class SmallNet(nn.Module):
    """Two convolutions with batch norm. Softplus, whose gradient is nowhere 0: the sign of a gradient that ReLU makes 0
    would depend on the processor."""

    def __init__(self, classes: int = 3, width: int = 6) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, width, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(width)
            self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
            self.linear = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = softplus(self.norm(self.first(x - 0.4)))
        logits: Tensor = self.linear(softplus(self.second(z)).mean((2, 3)))
        return 2 * logits


def faint_images(n: int = 24) -> ImageSet:
    """Toy images with half the contrast between the classes, so that the attacks of the papers' budgets matter."""
    made = toy_images(n)
    pixels = made.images.clone()
    pixels[torch.arange(n), made.labels % 3] -= 60
    return replace(made, images=pixels)


def parts_of(name: str, burn_in: float = 0.0, **changed: Any) -> Method:
    """The method with the settings that its paper states, changed by `changed`, kind -> settings. A weighting starts
    after `burn_in`, for the papers' would leave it nothing of a short run."""
    found = methods.entry(name)
    parts: dict[str, dict[str, Any]] = {kind: {"name": part} for kind, part in found.parts().items()}
    for address, value in found.settings.items():
        section, _, key = address.partition(".")
        if section in PARTS:
            parts[section][key] = value
    if found.weighting != "none":
        parts["weighting"]["burn_in"] = burn_in
    return methods.compose({kind: settings | changed.get(kind, {}) for kind, settings in parts.items()})


def attacks_of(name: str, *others: str, steps: int = 2) -> dict[str, Attack]:
    """What the method trains on, or where it leaves that to the trial, the others, an lp and a semantic one among."""
    return toy_attacks(*(methods.entry(name).train or others or ("linf", "pgd-l2", "fog")), steps=steps)


def uneven_prior(train: ImageSet, of: Mapping[str, Attack]) -> Prior:
    """What phase I might have measured: no two attacks alike, nor the rows and the columns of the matrix."""
    m = len(of)
    matrix = torch.arange(m * m, dtype=torch.float32).view(m, m).sin() / 10
    loss = 1 + torch.arange(len(train) * m, dtype=torch.float32).view(-1, m).cos() ** 2
    return Prior(tuple(of), torch.linspace(0.3, 0.7, m), loss, matrix, 1, 0.0)


def train(name: str, recipe: Recipe = RECIPE, **more: Any) -> Fitted:
    """fit() of a SmallNet on 24 faint images; `images`, `of` (attacks), `method`, `files`, `report` may be given."""
    images, of = more.pop("images", None) or faint_images(), more.pop("of", None) or attacks_of(name)
    made = more.pop("method", None) or parts_of(name)
    prior = uneven_prior(images, of) if made.sampler.needs_prior else None
    return fit(SmallNet(), images, of, made, recipe, importance=ones(of), seed=0, prior=prior, **more)
