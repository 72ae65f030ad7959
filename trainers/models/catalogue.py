"""The registry of models, and how one is made from its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import torch
from torch import nn

from attacks.errors import InputError, unknown
from attacks.registry import Registry

models: Registry[Callable[..., nn.Module]] = Registry("model", "trainers.models")


def create(
    name: str = "preact-resnet-18",
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """A fresh model on the CPU, in train mode; its weights follow from `seed`, the global random state stays as it was.

    mean and std: one number per channel (None: 0 and 1). `options` are the model's own. InputError for bad ones.
    """
    build = models.get(name)
    mean = (0.0,) * in_channels if mean is None else tuple(mean)
    std = (1.0,) * in_channels if std is None else tuple(std)
    _check(num_classes, in_channels, width, mean, std)
    for option in options.keys() - inspect.signature(build).parameters.keys():
        raise unknown(f"option of model {name}", option, inspect.signature(build).parameters)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(num_classes=num_classes, in_channels=in_channels, width=width, mean=mean, std=std, **options)


def _check(num_classes: int, in_channels: int, width: int, mean: Sequence[float], std: Sequence[float]) -> None:
    for label, value, least in (("num_classes", num_classes, 2), ("in_channels", in_channels, 1), ("width", width, 1)):
        if type(value) is not int or value < least:
            raise InputError(f"expected a whole {label} >= {least}, got {value!r} (model)")
    numbers = all(isinstance(number, int | float) and isfinite(number) for number in (*mean, *std))
    if not (numbers and len(mean) == len(std) == in_channels and all(s > 0 for s in std)):
        raise InputError(f"expected {in_channels} means and {in_channels} stds > 0, got {mean} and {std} (model)")
