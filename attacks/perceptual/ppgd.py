"""PPGD: projected gradient descent in a ball of the perceptual distance."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from attacks import geometry, losses, noise
from attacks.base import ATTACKS, Attack, Loss, Model, View, _frozen, evaluate
from attacks.geometry import l2_norm, per_image
from attacks.perceptual.alexnet import AlexNetFeatures
from attacks.perceptual.distance import Featured, embed
from attacks.precision import exact_fp32
from attacks.progress import Progress

_NOISE = 0.01  # standard deviation of the start
_H = 1e-2  # of the finite difference, along a direction of norm 1: its error is then under 1 % in fp32
_SOLVED = 1e-6  # |residual|^2 over |gradient|^2, below which only the finite difference's error is left
_WITHIN = 0.999  # of epsilon, where a projection aims


@ATTACKS.register("ppgd")
@dataclass(frozen=True, kw_only=True)
class PPGD(Attack):
    """Steps of length 2 epsilon / num_steps along (J'J)^-1 g in the ball d(x, x') <= epsilon, from x + 0.01 N(0, 1).

    d is the distance of attacks.perceptual.distance, J the derivative of its embedding phi at the iterate, g that of
    the loss, by default min(kappa, margin). `features` measures d: a frozen network, or AlexNetFeatures; None is the
    model under attack, which must then have `features`. Every iterate that is evaluated, and the result, is in the
    ball and in [0, 1]. An image stays as it is where the gradient is 0, no direction changes phi, or a number is not
    finite. keep_best: the result is the iterate of highest loss, not the last one; one forward more.

    Cost of a step: 1 forward and input-backward of the model under attack; of phi's network cg_iterations + 1 +
    projections forwards (8) and cg_iterations - 1 input-backwards (4). To start, 1 + projections forwards of it (3).

    Source: Laidlaw, Singla and Feizi 2021; perceptual-advex@65c1bc3, PerceptualPGDAttack. Deviations:
    - All is per image (there, the batch's largest gradient or residual stops all), in a fixed number of kernels. A
      gradient counts however small; there, an image below 1e-4 stays.
    - Conjugate gradients normalise the direction before the finite difference, guard their divisions (there, NaN), end
      at a residual relative to g (there, at 0.1: often after one iteration on a robust model) and give the length of
      J v from the products already made.
    - A step is shortened towards x, not along the gradient of d: first so that phi, taken as linear, stays in the ball,
      then by the distance seen, `projections` times in all; if the last point is outside, the step is not taken.
      There, up to 10 Newton steps aim 0.1 inside the ball, then 10 halvings, of which the last may be outside.
    - The start is clamped to [0, 1] and brought into the ball. No gradients are left on parameters.
    At equal num_steps this is the stronger (tests/attacks/test_ppgd.py), with one cg_iteration too.
    """

    name: ClassVar[str] = "ppgd"
    family: ClassVar[str] = "perceptual"

    kappa: float = 1.0
    cg_iterations: int = 5
    projections: int = 2
    decay_step_size: bool = False
    """Steps of epsilon * 0.1^(t / num_steps) instead."""
    keep_best: bool = False
    features: Featured | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kappa > 0:
            raise self.refuse(f"kappa > 0, got {self.kappa:g}")
        for count in ("cg_iterations", "projections"):
            if getattr(self, count) < 1:
                raise self.refuse(f"{count} >= 1, got {getattr(self, count)}")

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        return losses.margin(logits, y).clamp_max(self.kappa)

    def bind(self, reference: nn.Module) -> Self:
        if isinstance(self.features, AlexNetFeatures):
            return self
        return dataclasses.replace(self, features=self._featured(reference))

    def run(self, model: Model, x: Tensor, y: Tensor, **options: Any) -> View:
        if self.features is None:
            return dataclasses.replace(self, features=self._featured(model)).run(model, x, y, **options)
        with _frozen(cast(Model, self.features)):
            return super().run(model, x, y, **options)

    def _featured(self, network: object) -> Featured:
        if not isinstance(network, Featured):
            remedy = "bind() a frozen network that has it, such as the starting model"
            raise self.refuse(f"a network with a method features(x), got {type(network).__name__}: {remedy}")
        return network

    def _run(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View:
        progress = Progress(x, stop, self.keep_best)
        with exact_fp32():
            clean = self._embed(x)
            start = (x + _NOISE * noise.normal(seeds, 0, x.shape[1:])).clamp(0, 1)
            x_adv = self._inside(x, clean, start, x.new_ones(len(x)), x)
        for step in range(self.num_steps):
            grad = self._look(model, x_adv, y, loss, progress)
            with exact_fp32():
                x_adv = self._climb(x, clean, x_adv, grad, self._length(step))
            rows = progress.survivors()
            if rows is not None:
                x, y, x_adv, clean = x[rows], y[rows], x_adv[rows], clean[rows]
                if not len(rows):
                    return progress.view(self.name)
        if final_forward or self.keep_best:
            logits, values = evaluate(model, loss, x_adv, y)
            progress.add(x_adv, logits, y, values, counts=False)
        else:
            progress.hold(x_adv, progress.loss)
        return progress.view(self.name)

    def _look(self, model: Model, x_adv: Tensor, y: Tensor, loss: Loss, progress: Progress) -> Tensor:
        with torch.enable_grad():
            leaf = x_adv.detach().requires_grad_()
            logits, values = evaluate(model, loss, leaf, y)
            (grad,) = torch.autograd.grad(values.sum(), leaf)
        progress.add(x_adv, logits.detach(), y, values.detach())
        return grad

    def _length(self, step: int) -> float:
        """Of a step, in units of d."""
        if self.decay_step_size:
            return float(self.epsilon * 0.1 ** (step / self.num_steps))
        return 2 * self.epsilon / self.num_steps

    def _embed(self, x: Tensor) -> Tensor:
        return embed(cast(Featured, self.features), x)

    def _climb(self, x: Tensor, clean: Tensor, x_adv: Tensor, grad: Tensor, length: float) -> Tensor:
        """The next iterate. What cannot be divided becomes NaN, which is nowhere inside: that image stays."""
        with torch.enable_grad():
            leaf = x_adv.detach().requires_grad_()
            phi = self._embed(leaf)
        way, change = self._solve(leaf, phi, geometry.steepest_l2(grad))
        scale = length / l2_norm(change)
        further = (x_adv + per_image(scale, way) * way).clamp(0, 1)
        expected = l2_norm(phi.detach() + scale[:, None] * change - clean)
        return self._inside(x, clean, further, (self.epsilon / expected).clamp_max(1), x_adv)

    def _solve(self, leaf: Tensor, phi: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """v with J'J v = grad, |grad| = 1, by conjugate gradients from 0, and J v."""
        x_adv, base = leaf.detach(), phi.detach()
        v, image, left, along = torch.zeros_like(grad), torch.zeros_like(base), grad, grad
        squared = torch.ones_like(base[:, 0])
        for iteration in range(self.cg_iterations):
            unit = geometry.steepest_l2(along)
            product = (self._embed(x_adv + _H * unit) - base) / _H
            far = (left * unit).flatten(1).sum(1) / product.square().sum(1)
            far = torch.where((squared > _SOLVED) & far.isfinite(), far, 0)
            v, image = v + per_image(far, v) * unit, image + far[:, None] * product
            if iteration + 1 < self.cg_iterations:
                (back,) = torch.autograd.grad(phi, leaf, product, retain_graph=True)
                left = left - per_image(far, left) * back
                before, squared = squared, left.flatten(1).square().sum(1)
                along = left + per_image(squared / before, left) * along
        return v, image

    def _inside(self, x: Tensor, clean: Tensor, x_adv: Tensor, share: Tensor, otherwise: Tensor) -> Tensor:
        """The point x + share (x_adv - x), its share made smaller until it is in the ball; `otherwise` if it is not."""
        for _ in range(self.projections):
            point = torch.lerp(x, x_adv, per_image(share, x))
            distance = l2_norm(self._embed(point) - clean)
            inside = distance <= self.epsilon
            share = torch.where(inside, share, share * (_WITHIN * self.epsilon / distance).square())
        return torch.where(per_image(inside, x), point, otherwise)
