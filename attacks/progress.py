"""What a run has seen of each image so far, and which images still have to be attacked."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.base import View

_CHECK_EVERY = 3  # steps between two looks at how many are broken: each is one host synchronisation
_WORTH_DROPPING = 0.25  # of the images still in the batch


class Progress:
    """Verdicts of the evaluated iterates. With `stop`, an image keeps the first iterate that broke it; with
    `keep_best`, the one of highest loss until then.

    Without `stop` nothing here waits for the device.
    """

    def __init__(self, x: Tensor, stop: bool, keep_best: bool = False) -> None:
        self.stop = stop
        self.keep_best = keep_best
        self._x = x
        self._loss = x.new_full((len(x),), -torch.inf if keep_best else 0.0)
        self._robust = x.new_ones(len(x), dtype=torch.bool)
        self._steps = x.new_zeros(len(x), dtype=torch.int64)
        self._rows = torch.arange(len(x), device=x.device)
        self._finished: tuple[Tensor, ...] | None = None
        self._looks = 0

    def add(self, x: Tensor, logits: Tensor, y: Tensor, loss: Tensor, counts: bool = True) -> None:
        """One evaluated iterate; `counts` if a step is taken from it. A NaN logit is no correct answer."""
        top, label = logits.max(1)
        correct = (label == y) & (top == top)
        if self.keep_best:
            self._take((loss > self._loss) | ~correct if self.stop else loss > self._loss, x, loss)
        else:
            self.hold(x, loss)
        self._robust = self._robust & correct
        if counts:
            self._steps = self._steps + (self._robust if self.stop else correct)

    def hold(self, x: Tensor, loss: Tensor) -> None:
        """x and loss stand for the images not broken (with `stop`), or for all."""
        if self.stop:
            self._take(self._robust, x, loss)
        else:
            self._x, self._loss = x, loss

    def _take(self, chosen: Tensor, x: Tensor, loss: Tensor) -> None:
        chosen = chosen & self._robust if self.stop else chosen
        self._loss = torch.where(chosen, loss, self._loss)
        self._x = torch.where(chosen[:, None, None, None], x, self._x)

    @property
    def loss(self) -> Tensor:
        return self._loss

    def survivors(self) -> Tensor | None:
        """The rows to keep, now and then when enough images are broken; the rest are put aside. None: keep all."""
        self._looks += 1
        if not self.stop or self._looks % _CHECK_EVERY:
            return None
        keep = self._robust.nonzero()[:, 0]
        if len(keep) > (1 - _WORTH_DROPPING) * len(self._robust):
            return None
        self._put_aside()
        self._x, self._loss, self._robust = self._x[keep], self._loss[keep], self._robust[keep]
        self._steps, self._rows = self._steps[keep], self._rows[keep]
        return keep

    def _put_aside(self) -> None:
        now = (self._x, self._loss, self._robust, self._steps)
        if self._finished is None:
            self._finished = tuple(part.clone() for part in now)
            return
        for whole, part in zip(self._finished, now, strict=True):
            whole[self._rows] = part

    def view(self, attack: str) -> View:
        if self._finished is None:
            return View(attack, self._x, self._loss, self._robust, self._steps)
        self._put_aside()
        x, loss, robust, steps = self._finished
        return View(attack, x, loss, robust, steps)
