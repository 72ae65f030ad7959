"""Projected gradient descent in the l-infinity, l2 and l1 balls; the latent is the perturbation itself.

Source: robust_union@ef34194 (CIFAR-10 and MNIST), in the order step, ball, box. Deviations: fp32; every image is
projected by itself and only from outside the ball; k of the l1 step is drawn per image, not per batch; an l1 step may
move a pixel away from the bound it lies on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import geometry, noise
from attacks.base import ATTACKS
from attacks.latent import LatentAttack, Scene


@dataclass(frozen=True, kw_only=True)
class PGD(LatentAttack):
    """random_start: begin at a random point of the ball instead of the clean image (a KL loss needs that)."""

    family: ClassVar[str] = "lp"

    random_start: bool = False

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        scene = (-x, 1 - x)
        if not self.random_start:
            return torch.zeros_like(x), scene
        return self.project(self.draw(seeds, x.shape[1:]), scene), scene

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        return x + latent

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return self.ball(latent).clamp(*scene[:2])

    def ball(self, delta: Tensor) -> Tensor:
        raise NotImplementedError

    def draw(self, seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
        raise NotImplementedError


@ATTACKS.register("pgd-linf")
@dataclass(frozen=True, kw_only=True)
class PGDLinf(PGD):
    name: ClassVar[str] = "pgd-linf"
    norm: ClassVar[str] = "linf"
    max_epsilon: ClassVar[float] = 1.0

    def ball(self, delta: Tensor) -> Tensor:
        return geometry.project_linf(delta, self.epsilon)

    def draw(self, seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
        return geometry.random_linf(seeds, shape, self.epsilon)


@ATTACKS.register("pgd-l2")
@dataclass(frozen=True, kw_only=True)
class PGDL2(PGD):
    name: ClassVar[str] = "pgd-l2"
    norm: ClassVar[str] = "l2"
    direction = "l2"

    def ball(self, delta: Tensor) -> Tensor:
        return geometry.project_l2(delta, self.epsilon)

    def draw(self, seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
        return geometry.random_l2(seeds, shape, self.epsilon)


@ATTACKS.register("pgd-l1")
@dataclass(frozen=True, kw_only=True)
class PGDL1(PGD):
    """Each step spreads step_size evenly over the k coordinates of largest gradient that can still move, 5 <= k <= 20.

    A coordinate within `gap` of the bound that it would move to is passed over. It overstates robustness: of models
    that it leaves 90 % robust AutoAttack leaves none (adaptive-budget, Table 2). Judge by `l1` or `autoattack-l1`.
    """

    name: ClassVar[str] = "pgd-l1"
    norm: ClassVar[str] = "l1"
    weak: ClassVar[bool] = True
    fewest: ClassVar[int] = 5
    most: ClassVar[int] = 20

    gap: float = 0.05

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        latent, box = super().start(x, seeds)
        counts = self.fewest + noise.uniform(seeds, 9, (self.num_steps,)) * (self.most - self.fewest + 1)
        return latent, (*box, counts.long())

    def ascend(self, latent: Tensor, grad: Tensor, x: Tensor, scene: Scene, step: int) -> Tensor:
        low, high, counts = scene
        stuck = torch.where(grad > 0, latent > high - self.gap, latent < low + self.gap)
        way = geometry.steepest_l1(grad.masked_fill(stuck, 0).nan_to_num(0), counts[:, step], self.most)
        return torch.add(latent, way, alpha=self.step_size)

    def ball(self, delta: Tensor) -> Tensor:
        return geometry.project_l1(delta, self.epsilon)

    def draw(self, seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
        return geometry.random_l1(seeds, shape, self.epsilon)
