"""SPSA: PGD in l-infinity by Adam, on gradients estimated from forwards alone, as a black box would be attacked.

Source: Uesato et al. 2018; VIR runs 100 iterations of 256 samples, perturbation 0.001, learning rate 0.01.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import losses, noise
from attacks.base import ATTACKS, Loss, Model, evaluate
from attacks.latent import Scene
from attacks.lp import PGDLinf
from attacks.progress import Progress

_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-20
_BITS = 24  # signs that one number of attacks.noise holds


@ATTACKS.register("spsa")
@dataclass(frozen=True, kw_only=True)
class SPSA(PGDLinf):
    """Each step estimates the gradient of the margin from num_samples images x +- probe * u, u of random signs.

    Cost: num_steps * (num_samples + 1) forwards, at most `at_once` images each, and no backward: 25,700 forwards of
    every image as published, 80 times PGD-100. step_size is Adam's learning rate.
    Unspecified in VIR: 256 samples are read as 256 forwards, 128 antithetic pairs; the start is random in the ball;
    the loss is the margin, as in Uesato et al. The probes, up to `probe` outside the ball, are no verdicts: the
    iterate itself is evaluated once a step (a forward that VIR's 256 do not count).
    """

    name: ClassVar[str] = "spsa"
    at_once: ClassVar[int] = 2048

    random_start: bool = True
    num_samples: int = 256
    probe: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_samples < 2 or self.num_samples % 2:
            raise self.refuse(f"an even num_samples >= 2, got {self.num_samples}")
        if not self.probe > 0:
            raise self.refuse(f"probe > 0, got {self.probe:g}")

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        return losses.margin(logits, y)

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        """The scene goes on: Adam's two moments and the seeds of the next draw, all three changed in place."""
        latent, box = super().start(x, seeds)
        return latent, (*box, torch.zeros_like(x), torch.zeros_like(x), noise.derive(seeds, 1))

    def ascend(self, latent: Tensor, grad: Tensor, x: Tensor, scene: Scene, step: int) -> Tensor:
        """Adam's step (Kingma and Ba 2015), with 1e-20 for its 1e-8, which would stall a flat loss."""
        first, second = scene[2:4]
        grad = grad.nan_to_num(0, 0, 0)
        first.lerp_(grad, 1 - _BETA1)
        second.lerp_(grad.square(), 1 - _BETA2)
        mean, power = first / (1 - _BETA1 ** (step + 1)), second / (1 - _BETA2 ** (step + 1))
        return torch.addcdiv(latent, mean, power.sqrt().add_(_TINY), value=self.step_size)

    def _look(
        self, model: Model, x: Tensor, y: Tensor, latent: Tensor, scene: Scene, loss: Loss, progress: Progress
    ) -> Tensor:
        x_adv = self.render(x, latent, scene)
        logits, values = evaluate(model, loss, x_adv, y)
        progress.add(x_adv, logits, y, values)
        scene[4].copy_(noise.derive(scene[4], 0))
        return self._estimate(model, x_adv, y, scene[4], loss)

    def _estimate(self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss) -> Tensor:
        """The mean over the pairs of u * (loss(x + probe u) - loss(x - probe u)) / (2 probe)."""
        pairs = self.num_samples // 2
        together = max(min(pairs, self.at_once // (2 * len(x))), 1)
        words = (noise.uniform(seeds, 0, (-(-pairs // _BITS), *x.shape[1:])) * 2**_BITS).int()
        total = torch.zeros_like(x)
        for first in range(0, pairs, together):
            pair = torch.arange(first, min(first + together, pairs), device=x.device)
            bits = words.index_select(1, pair // _BITS) >> (pair % _BITS)[:, None, None, None]
            signs = (2 * (bits & 1) - 1).float()
            step = self.probe * signs
            around = torch.stack([x[:, None] + step, x[:, None] - step], 2).flatten(0, 2)
            labels = y[:, None].expand(-1, 2 * len(pair)).reshape(-1)
            values = evaluate(model, loss, around, labels)[1].reshape(len(x), len(pair), 2)
            total += torch.einsum("bs,bs...->b...", values[:, :, 0] - values[:, :, 1], signs)
        return total / (2 * self.probe * pairs)
