"""How a model is trained, whatever the method: the optimiser, its schedule, batches and augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from attacks.errors import InputError, unknown


def _thirds(t: float) -> float:
    return (1.0, 0.1, 0.01)[min(int(3 * t), 2)]


def _one_cycle(t: float) -> float:
    return t / 0.4 if t < 0.4 else (1 - t) / 0.6


def _robust_union(t: float) -> float:
    if t < 0.4:
        return t / 0.4
    return 1 - 0.95 * (t - 0.4) / 0.4 if t < 0.8 else 0.05 * (1 - t) / 0.2


def _steps(*drops: tuple[float, float]) -> Callable[[float], float]:
    """1, then each drop's factor once more than its share of the training is done."""
    return lambda t: min((factor for share, factor in drops if t > share), default=1.0)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "cosine": lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    "one-cycle": _one_cycle,
    "piecewise-ft": _thirds,
    "robust-union": _robust_union,
    "static": _steps((70 / 80, 0.1)),
    "multi-step-trades": _steps((75 / 76, 0.1)),
    "multi-step-mart": _steps((75 / 120, 0.1), (90 / 120, 0.01), (100 / 120, 0.001)),
    "multi-step-gairat": _steps((0.5, 0.1), (0.75, 0.01), (11 / 12, 0.005)),
    "multi-step-vir": _steps((75 / 115, 0.1), (90 / 115, 0.01)),
}
"""Name -> factor of the learning rate at t in (0, 1], the share of the training that is done. `piecewise-ft`, E-AT's
schedule: 1, 1/10, 1/100 for the three thirds. `one-cycle`: up to 1 at 40 %, then down to 0, in straight lines: the
cyclic one, and that of adaptive-budget on MNIST (6 and 9 epochs). `robust-union`: theirs on CIFAR, in straight lines up
to 1 at 40 %, 0.05 at 80 %, 0 at the end. The others drop at the papers' epochs, read as shares: `static`, E-AT's and
RAMP's from scratch, 70 of 80; TRADES 75 of 76; MART and MAIL 75, 90, 100 of 120; GAIRAT (WideResNet) 1/10 at 1/2, 1/100
at 3/4, 1/200 at 11/12; vir 75 and 90 of 115. `cosine` is the nearest to App. B of vir."""


OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`name`: sgd, with momentum, or adam (betas 0.9 and 0.999). `warm_up` is the share of the epochs in which CAS is
    in phase II. `fixed_batches` keeps one composition of the batches for all epochs. `bn` = "joint" sends all views of
    a batch through one train-mode forward, "separate" through one each. `crop_padding` and `flip` augment; None leaves
    them to the data set (0 and False where none says)."""

    name: str = "sgd"
    epochs: int = 20
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "piecewise-ft"
    warm_up: float = 0.5
    crop_padding: int | None = None
    flip: bool | None = None
    bn: str = "separate"
    fixed_batches: bool = False

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise unknown("optimizer", self.name, OPTIMIZERS)
        for name, low in (("epochs", 1), ("batch_size", 2)):
            if getattr(self, name) < low:
                raise InputError(f"expected {name} >= {low}, got {getattr(self, name)}")
        for name in ("lr", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"expected {name} >= 0, got {getattr(self, name)}")
        if self.crop_padding is not None and self.crop_padding < 0:
            raise InputError(f"expected crop_padding >= 0, got {self.crop_padding}")
        if not 0 <= self.warm_up <= 1:
            raise InputError(f"expected warm_up between 0 and 1, got {self.warm_up}")
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if self.bn not in ("separate", "joint"):
            raise InputError(f"expected bn to be 'separate' or 'joint', got {self.bn!r}")

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if self.name == "adam":
            return torch.optim.Adam(parameters, self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, self.lr, self.momentum, weight_decay=self.weight_decay)

    def lr_at(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step and epoch, both counted from 0; the schedule is read at the step's end (E-AT)."""
        return self.lr * SCHEDULES[self.schedule]((epoch + (step + 1) / steps_per_epoch) / self.epochs)

    def is_warm_up(self, epoch: int) -> bool:
        return epoch < round(self.warm_up * self.epochs)
