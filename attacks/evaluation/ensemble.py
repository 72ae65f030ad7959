"""What attacks made of several share: who is still to be attacked, and what each part broke."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks import geometry
from attacks.base import Attack, Loss, Model, View, evaluate


@dataclass(frozen=True, kw_only=True)
class OwnLoss(Attack):
    """An attack that climbs losses of its own and can climb no other."""

    def run(self, model: Model, x: Tensor, y: Tensor, **kwargs: Any) -> View:
        if kwargs.get("loss") is not None:
            raise self.refuse("loss=None, for this attack has losses of its own, got another")
        return super().run(model, x, y, **kwargs)


class Survivors:
    """The verdicts on a batch while parts of an ensemble go over those that are left.

    Each offer is brought into the budget, checked there in fp64 and judged by a forward of its own: what a part says
    of its images is not trusted.
    """

    def __init__(self, attack: Attack, model: Model, x: Tensor, y: Tensor, loss: Loss) -> None:
        self._attack, self._model, self._clean, self._y, self._loss_of = attack, model, x, y, loss
        self._x, self._stages = x.clone(), list[tuple[str, Tensor]]()
        self.logits, self._loss = evaluate(model, loss, x, y)
        self._robust = _correct(self.logits, y)
        self._steps = torch.zeros_like(y)

    def rows(self) -> Tensor:
        """Who is left: waits for the device."""
        return self._robust.nonzero()[:, 0]

    def offer(self, rows: Tensor, x_adv: Tensor, keep: bool = False) -> None:
        """Images for the rows: those that are misclassified are taken, the others too if `keep`."""
        y = self._y[rows]
        x_adv = confined(x_adv, self._clean[rows], self._attack)
        logits, values = evaluate(self._model, self._loss_of, x_adv, y)
        correct = _correct(logits, y)
        take = torch.ones_like(correct) if keep else ~correct
        self._x[rows] = torch.where(take[:, None, None, None], x_adv, self._x[rows])
        self._loss[rows] = torch.where(take, values, self._loss[rows])
        self._robust[rows] = correct

    def close(self, stage: str) -> None:
        self._stages.append((stage, self._robust.clone()))
        self._steps += self._robust

    def view(self) -> View:
        return View(self._attack.name, self._x, self._loss, self._robust, self._steps, tuple(self._stages))


def _correct(logits: Tensor, y: Tensor) -> Tensor:
    """A NaN logit is no correct answer."""
    top, label = logits.max(1)
    return (label == y) & (top == top)


def confined(x_adv: Tensor, x: Tensor, attack: Attack) -> Tensor:
    """x_adv, projected where it is outside the attack's ball or the box; x where it is not finite or still outside."""
    x_adv = x_adv.float()
    delta = x_adv.clamp(0, 1) - x
    outside = _norm(delta, attack.norm) > attack.epsilon
    project = {"linf": geometry.project_linf, "l2": geometry.project_l2, "l1": geometry.project_l1}[str(attack.norm)]
    brought = torch.where(geometry.per_image(outside, x), x + project(delta, attack.epsilon), x_adv).clamp(0, 1)
    fits = _norm(brought - x, attack.norm) <= attack.epsilon * (1 + 1e-5)
    return torch.where(geometry.per_image(fits, x), brought, x)  # a NaN fits nowhere


def _norm(delta: Tensor, norm: str | None) -> Tensor:
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[str(norm)]
    length: Tensor = torch.linalg.vector_norm(delta.double().flatten(1), ord=order, dim=1)
    return length
