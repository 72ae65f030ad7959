"""Small images, networks and attacks on which a whole training takes a second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import attacks
from attacks import Attack
from trainers import methods, models
from trainers.data import ImageSet
from trainers.loop import Fitted, fit
from trainers.parts import Batch, Method, Seen
from trainers.recipe import Recipe
from trainers.tradeoff import Prior

TIMES = ("seconds", "seconds_attack", "seconds_train")
NAMES = ("linf", "pgd-l2", "fog", "hsv")


def toy_images(n: int = 48, classes: int = 3, size: int = 8, seed: int = 0) -> ImageSet:
    """3 x size x size noise, in which channel k is brighter for class k: learnable in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    pixels = torch.randint(0, 100, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(n), labels % 3] += 120
    return ImageSet(pixels, labels, torch.arange(n) * 3 + 1)


def toy_net(classes: int = 3, seed: int = 0, **more: Any) -> nn.Module:
    return models.create(num_classes=classes, width=2, mean=[0.4] * 3, std=[0.25] * 3, seed=seed, **more)


def toy_attacks(*names: str, steps: int = 1) -> dict[str, Attack]:
    return {name: attacks.get(name).with_steps(steps) for name in names or NAMES}


class Biased(nn.Module):
    """Says the same of every image: its logits are its one parameter."""

    def __init__(self, *bias: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias + 0 * x.sum((1, 2, 3))[:, None]


def method(name: str, **settings: Any) -> Method:
    """The catalogue's method; settings as `sampler={"w1": 3}`."""
    names = methods.entry(name).parts()
    return methods.compose({kind: {"name": part, **settings.get(kind, {})} for kind, part in names.items()})


def ones(of: Mapping[str, Attack]) -> dict[str, float]:
    return dict.fromkeys(of, 1.0)


def flat_prior(train: ImageSet, of: Mapping[str, Attack]) -> Prior:
    """What phase I might have measured, all attacks alike."""
    m = len(of)
    return Prior(tuple(of), torch.full((m,), 0.5), torch.full((len(train), m), 2.0), torch.zeros(m, m), 1, 0.0)


def tune(name: str, model: nn.Module, train: ImageSet, of: Mapping[str, Attack], recipe: Recipe, **more: Any) -> Fitted:
    """fit() with the catalogue's method, equal importance and, for samplers that need one, a flat prior."""
    made = more.pop("method", None) or method(name)
    prior = more.pop("prior", None) or (flat_prior(train, of) if made.sampler.needs_prior else None)
    settings: dict[str, Any] = {"importance": ones(of), "seed": 0, "prior": prior} | more
    return fit(model, train, of, made, recipe, **settings)


def told(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records without the times, which no two runs share."""
    return [{key: value for key, value in record.items() if key not in TIMES} for record in history]


def same(a: Mapping[str, Tensor] | None, b: Mapping[str, Tensor] | None) -> bool:
    """Equal to the last bit."""
    if a is None or b is None:
        return a is b
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def batch_of(index: list[int], warm_up: bool = False) -> Batch:
    """A batch, of which samplers look at the index and the phase only."""
    rows = torch.tensor(index)
    return Batch(rows, slice(0, len(index)), torch.zeros(len(index), 3, 8, 8), torch.zeros_like(rows), 0, 0, warm_up)


def seen(attack: str, ce: list[float], correct: list[int], robust_all: list[int] | None = None) -> Seen:
    robust = correct if robust_all is None else robust_all
    return Seen(attack, torch.tensor(ce), torch.tensor(correct) > 0, torch.tensor(robust) > 0, torch.tensor(robust))
