"""MDE, the margin decomposition ensemble, in l-infinity: APGD-CE, MD, MDMT and FAB-T, each on what is left.

Source: Ma et al. 2023 ("Imbalanced gradients") and its code, MDAttack@3ffbf4c, version MDE. VIR evaluates with it.
Symbols: z_y the label's logit, z_t the target's; the first two fifths of the steps (theirs: 20 of 50) climb one of
-z_y and z_t alone, the rest the margin z_t - z_y; the step size starts at 2 epsilon in each part and follows a cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import geometry, losses, noise
from attacks.apgd import Linf
from attacks.base import ATTACKS, Attack, Loss, Model, View
from attacks.evaluation import foreign
from attacks.evaluation.ensemble import OwnLoss, Survivors
from attacks.progress import Progress

_TARGETS = 9


@ATTACKS.register("mde")
@dataclass(frozen=True, kw_only=True)
class MDE(OwnLoss, Attack):
    """num_steps is that of one MD run; APGD-CE (random start) and FAB-T take twice as many, as published.

    An image that nothing breaks is returned as APGD-CE left it. View.steps_correct counts the parts that an image
    survived. Cost for an image that survives, with ten classes: 58 * num_steps forwards, 40 * num_steps
    input-backwards. Waits for the device between runs, and inside to drop what is broken.
    Deviations from the code: MDMT's targets are the nine likeliest classes other than the label (theirs are those
    ranked 1 to 9 and the last, of which rank 1 is mostly the label itself: no margin to climb); the first step is
    2 epsilon long, not 1.995; images broken by one run are not attacked by the next; the clean image counts.
    Kept: the first step climbs +z_y, away from the goal. FAB-T comes from pyautoattack and draws nothing.
    """

    name: ClassVar[str] = "mde"
    family: ClassVar[str] = "lp"
    norm: ClassVar[str] = "linf"
    max_epsilon: ClassVar[float] = 1.0

    def _run(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View:
        left = Survivors(self, model, x, y, loss)
        if len(rows := left.rows()):
            apgd = Linf(epsilon=self.epsilon, num_steps=2 * self.num_steps, random_start=True)
            view = apgd._run(model, x[rows], y[rows], seeds[rows], losses.cross_entropy, False, True)
            left.offer(rows, view.x, keep=True)
        left.close("apgd-ce")
        others = left.logits.scatter(1, y[:, None], -torch.inf)
        targets = others.topk(min(_TARGETS, others.shape[1] - 1), 1).indices
        runs = [("md", None), *(("mdmt", target) for target in targets.unbind(1))]
        for number, (stage, target) in enumerate(runs, start=1):
            for label_first in (True, False):
                if len(rows := left.rows()):
                    drawn = noise.derive(seeds[rows], number, int(label_first))
                    aim = None if target is None else target[rows]
                    left.offer(rows, self._climb(model, x[rows], y[rows], drawn, aim, label_first))
            if number in (1, len(runs)):
                left.close(stage)
        if len(rows := left.rows()):
            budget = foreign.Budget("linf", self.epsilon, 2 * self.num_steps, others.shape[1], seed=0)
            left.offer(rows, foreign.perturb(foreign.Part("fab-t"), budget, model, x[rows], y[rows]))
        left.close("fab-t")
        return left.view()

    def _climb(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, target: Tensor | None, label_first: bool
    ) -> Tensor:
        """One run on all of x; the images (B, C, H, W) that broke, else the last."""
        progress, switch = Progress(x, stop=True), int(0.4 * self.num_steps)
        low, high = (x - self.epsilon).clamp_min(0), (x + self.epsilon).clamp_max(1)
        z = torch.clamp(x + geometry.random_linf(seeds, x.shape[1:], self.epsilon), low, high)
        for step in range(self.num_steps):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                logits = model(z)
                label, goal = _parts(logits, y, target)
                climbed = label if step < min(1, switch) else goal - label
                if 0 < step < switch:
                    climbed = -label if label_first else goal
                (grad,) = torch.autograd.grad(climbed.sum(), z)
            progress.add(z.detach(), logits.detach(), y, (goal - label).detach())
            since = max(step - 1 - (switch if step > switch else 0), 0)
            size = self.epsilon * (1 + math.cos(math.pi * since / (self.num_steps - switch)))
            z = torch.clamp(torch.add(z.detach(), grad.sign(), alpha=size), low, high)
            rows = progress.survivors()
            if rows is not None:
                if not len(rows):
                    return progress.view(self.name).x
                z, y, low, high = z[rows], y[rows], low[rows], high[rows]
                target = None if target is None else target[rows]
        progress.hold(z, progress.loss)
        return progress.view(self.name).x


def _parts(logits: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """The label's logit and the target's, of no target the largest other one: (B,) each."""
    label = logits.gather(1, y[:, None])[:, 0]
    if target is None:
        return label, label + losses.margin(logits, y)
    return label, logits.gather(1, target[:, None])[:, 0]
