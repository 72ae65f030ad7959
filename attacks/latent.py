"""The one PGD loop on a latent: render, climb the loss, step, project. All semantic attacks and the lp PGDs run it.

Source: adversarial-corruptions@772509b and robust_union@ef34194: N plain steps from one start, no momentum, the last
iterate is the result. Deviations: the loss is summed, not averaged (else the step of an image would depend on its
batch through the normaliser's 1e-8); every random draw is per image; the result is detached.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from attacks import geometry
from attacks.base import Attack, Loss, Model, View, evaluate
from attacks.progress import Progress

Scene = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class LatentAttack(Attack):
    """An attack given by where its latent starts, how it is rendered and to what it is confined.

    A scene is what stays fixed in a run: per-image tensors, (B, ...) each. epsilon bounds the latent, which for a
    semantic attack bounds no norm of the image. Cost: num_steps forwards and input-backwards, num_steps + 1 renders.
    keep_best: the result is the iterate of highest loss, not the last one; one forward more.
    """

    direction: ClassVar[Literal["sign", "l2"]] = "sign"

    step_size: float
    keep_best: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise self.refuse(f"step_size > 0, got {self.step_size:g}")

    def with_steps(self, num_steps: int) -> Self:
        step_size = self.step_size * self.num_steps / max(num_steps, 1)
        return dataclasses.replace(self, num_steps=num_steps, step_size=step_size)

    @abstractmethod
    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        """The first latent, inside the budget, and the scene. InputError for sizes that the attack cannot do."""

    @abstractmethod
    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        """The images of a latent, in [0, 1] up to rounding; differentiable in the latent."""

    @abstractmethod
    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        """The latent brought back into the budget."""

    def ascend(self, latent: Tensor, grad: Tensor, x: Tensor, scene: Scene, step: int) -> Tensor:
        """One step up the gradient, before the projection. sgn(NaN) is 0 in torch: such a latent stays."""
        way = grad.sign() if self.direction == "sign" else geometry.steepest_l2(grad)
        return torch.add(latent, way, alpha=self.step_size)

    def _run(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View:
        progress = Progress(x, stop, self.keep_best)
        latent, scene = self.start(x, seeds)
        for step in range(self.num_steps):
            grad = self._look(model, x, y, latent, scene, loss, progress)
            latent = self.project(self.ascend(latent, grad, x, scene, step), scene)
            rows = progress.survivors()
            if rows is not None:
                x, y, latent, scene = x[rows], y[rows], latent[rows], tuple(part[rows] for part in scene)
                if not len(rows):
                    return progress.view(self.name)
        x_adv = self.render(x, latent, scene)
        if final_forward or self.keep_best:
            logits, values = evaluate(model, loss, x_adv, y)
            progress.add(x_adv, logits, y, values, counts=False)
        else:
            progress.hold(x_adv, progress.loss)
        return progress.view(self.name)

    def _look(
        self, model: Model, x: Tensor, y: Tensor, latent: Tensor, scene: Scene, loss: Loss, progress: Progress
    ) -> Tensor:
        """Evaluate the latent; the gradient of the summed loss with respect to it."""
        with torch.enable_grad():
            latent = latent.detach().requires_grad_()
            x_adv = self.render(x, latent, scene)
            logits, values = evaluate(model, loss, x_adv, y)
            (grad,) = torch.autograd.grad(values.sum(), latent)
        progress.add(x_adv.detach(), logits.detach(), y, values.detach())
        return grad
