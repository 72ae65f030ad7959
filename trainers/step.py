"""One training step: the attacks on an eval-mode model, then the train-mode forwards, the loss and the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attacks import Attack, View
from attacks.noise import derive
from trainers.augment import augment
from trainers.clock import Mark, between, mark
from trainers.data import ImageSet
from trainers.parts import Batch, Inner, Objective, Seen, Weighting
from trainers.passes import Passes
from trainers.recipe import Recipe
from trainers.tally import ClassWeights
from trainers.workers import Workers

AUGMENTATION, ATTACK, PROBE = range(3)
"""Purposes of an image's noise: each draws from a stream of its own."""


class Diverged(ArithmeticError):
    """The loss is no longer a number."""


@dataclass
class Step:
    """`model` is attacked; `net` is the same model, or its DDP wrapper, for the train-mode forwards."""

    model: nn.Module
    net: nn.Module
    optimizer: torch.optim.Optimizer
    inner: Inner
    objective: Objective
    weighting: Weighting
    train: ImageSet
    recipe: Recipe
    seed: int
    workers: Workers
    marks: list[tuple[Mark, Mark, Mark]] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    images: int = 0
    classes: ClassWeights = field(default_factory=ClassWeights)

    def batch(self, index: Tensor, epoch: int, step: int) -> Batch:
        """The images at `index`, augmented; their noise depends on (seed, epoch, image) alone."""
        share = self.workers.share(len(index))
        rows = index[share].to(self.train.images.device)
        seeds = self._seeds(rows, epoch, AUGMENTATION)
        x = augment(
            self.train.images[rows], seeds, crop_padding=self.recipe.crop_padding or 0, flip=bool(self.recipe.flip)
        )
        return Batch(index, share, x, self.train.labels[rows], epoch, step, self.recipe.is_warm_up(epoch))

    def __call__(self, batch: Batch, attacks: Sequence[Attack]) -> list[Seen]:
        """Updates the model once; what each view did, for the whole batch. Raises Diverged before a loss that is not
        finite reaches the weights."""
        with self.passes.counted(self.model):
            seen = self._step(batch, attacks)
        self.images += len(batch.y)
        return seen

    def _step(self, batch: Batch, attacks: Sequence[Attack]) -> list[Seen]:
        start = mark(batch.x.device)
        rows = batch.index[batch.share].to(batch.y.device)
        loss = self.objective.attack_loss(self._frozen_logits(batch.x) if self.objective.attack_clean else None)
        views = self.inner.views(self.model, batch, attacks, loss, self._seeds(rows, batch.epoch, ATTACK))
        attacked = mark(batch.x.device)
        seen = self._update(batch, views)
        self.marks.append((start, attacked, mark(batch.x.device)))
        return seen

    def cost(self) -> dict[str, float]:
        """What the steps since the last call took: seconds, on the device's own clock, and this worker's forward and
        backward passes for each training image."""
        attack = sum(between(start, attacked) for start, attacked, _ in self.marks)
        train = sum(between(attacked, end) for _, attacked, end in self.marks)
        passes = {"forwards": self.passes.forwards / self.images, "backwards": self.passes.backwards / self.images}
        self.marks.clear()
        self.passes, self.images = Passes(), 0
        return {"seconds_attack": attack, "seconds_train": train} | passes

    def _update(self, batch: Batch, views: Sequence[View]) -> list[Seen]:
        self.net.train()
        wants_clean = self.objective.clean or self.weighting.clean
        clean, advs = self._forward(batch.x if wants_clean else None, [v.x for v in views])
        plain, robust = self.objective.terms(clean, advs, views, batch.y)
        p_clean = clean.detach().softmax(1) if clean is not None else None
        w = self.weighting(p_clean, advs[0].detach().softmax(1), views[0], batch.y, batch.epoch)
        loss = plain + w * robust
        weighed = [w, batch.y.float()] if self.weighting.weighs else []
        seen = self._gather(batch, views, [z.detach() for z in advs], [loss.detach(), *weighed])
        loss = loss.sum() * (self.workers.count / len(batch.index))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return seen

    def _forward(self, x: Tensor | None, advs: list[Tensor]) -> tuple[Tensor | None, list[Tensor]]:
        inputs = ([] if x is None else [x]) + advs
        if self.recipe.bn == "joint":
            outputs = list(self.net(torch.cat(inputs)).chunk(len(inputs)))
        else:
            outputs = [self.net(z) for z in inputs]
        return (None, outputs) if x is None else (outputs[0], outputs[1:])

    def _gather(self, batch: Batch, views: Sequence[View], advs: Sequence[Tensor], losses: list[Tensor]) -> list[Seen]:
        """What the views did, for the whole batch; the step's one look at the device. `losses`: the loss (B,) and, of a
        weighting that weighs, its weights and the labels. Every worker raises Diverged when one is not finite."""
        mine = [*losses]
        for view, logits in zip(views, advs, strict=True):
            ce, correct = cross_entropy(logits, batch.y, reduction="none"), logits.argmax(1) == batch.y
            mine += [ce, correct.float(), view.robust_all.float(), view.steps_correct.float()]
        rows = self.workers.whole(torch.stack(mine), len(batch.index)).cpu()
        if not bool(rows.isfinite().all()):
            raise Diverged(f"the training loss is not finite in epoch {batch.epoch}, step {batch.step}")
        if self.weighting.weighs:
            self.classes.saw(*rows[1:3])
        return [
            Seen(view.attack, ce, correct > 0, robust_all > 0, steps_correct.long())
            for view, (ce, correct, robust_all, steps_correct) in zip(
                views, rows[len(losses) :].view(len(views), 4, -1), strict=True
            )
        ]

    @torch.no_grad()
    def _frozen_logits(self, x: Tensor) -> Tensor:
        self.model.eval()
        logits: Tensor = self.model(x)
        return logits

    def _seeds(self, rows: Tensor, epoch: int, purpose: int) -> Tensor:
        return derive(self.train.ids[rows], self.seed, epoch, purpose)
