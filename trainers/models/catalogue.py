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
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """A fresh model on the CPU, in train mode; its weights follow from `seed`, the global random state stays as it was.

    width: None for the model's own. mean and std: one number per channel (None: 0 and 1). `options` are the model's.
    InputError for bad ones. `architecture` of the model has all of them.
    """
    build = models.get(name)
    mean = (0.0,) * in_channels if mean is None else tuple(mean)
    std = (1.0,) * in_channels if std is None else tuple(std)
    width = default_width(name) if width is None else width
    _check(num_classes, in_channels, width, mean, std)
    for option in options.keys() - inspect.signature(build).parameters.keys():
        raise unknown(f"option of model {name}", option, inspect.signature(build).parameters)
    shape = {"num_classes": num_classes, "in_channels": in_channels, "width": width, "mean": mean, "std": std}
    stated = inspect.signature(build).bind(**shape, **options)
    stated.apply_defaults()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build(**stated.kwargs)
    architecture = stated.kwargs | {"name": name, "mean": list(mean), "std": list(std)}
    model.architecture = architecture  # type: ignore[assignment]
    return model


def default_width(name: str) -> int:
    """The width that the literature means by the model's name."""
    return int(inspect.signature(models.get(name)).parameters["width"].default)


def _check(num_classes: int, in_channels: int, width: int, mean: Sequence[float], std: Sequence[float]) -> None:
    for label, value, least in (("num_classes", num_classes, 2), ("in_channels", in_channels, 1), ("width", width, 1)):
        if type(value) is not int or value < least:
            raise InputError(f"expected a whole {label} >= {least}, got {value!r} (model)")
    numbers = all(isinstance(number, int | float) and isfinite(number) for number in (*mean, *std))
    if not (numbers and len(mean) == len(std) == in_channels and all(s > 0 for s in std)):
        raise InputError(f"expected {in_channels} means and {in_channels} stds > 0, got {mean} and {std} (model)")
