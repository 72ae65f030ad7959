"""What every attack is: a frozen dataclass whose fields are its knobs, called with a model and a batch.

The contract, held by tests/attacks/test_contract.py for every registered attack:
the output is detached, finite, in [0, 1] and inside its budget; the model is left as it was found (modes, gradients,
buffers), and so is every global random state; an image's noise depends on its seed only, not on its batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from attacks import losses, noise
from attacks.errors import InputError
from attacks.registry import Registry

Model = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class View:
    """What a run leaves, image by image, all detached; every forward of the run is an evaluated iterate.

    x: (B, C, H, W) fp32, the adversarial images. loss: (B,) of x if that was evaluated, else of the last that was.
    robust_all: (B,) bool, correct at every evaluated iterate.
    steps_correct: (B,) int64, how many of the iterates from which a step was taken were correct, over all restarts.
    stages: of an attack made of several, each one's name and which images (B,) bool were still robust after it.
    """

    attack: str
    x: Tensor
    loss: Tensor
    robust_all: Tensor
    steps_correct: Tensor
    stages: tuple[tuple[str, Tensor], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An untargeted attack. Images are fp32 NCHW in [0, 1] (not checked: it would stall a GPU).

    num_restarts: runs from other draws; an image takes the run that broke it, else the one of highest loss. Later runs
    start at random where the attack can. Costs that many times a run, and a forward each.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    norm: ClassVar[str | None] = None
    """linf, l2 or l1, of the attacks that bound one."""
    max_epsilon: ClassVar[float] = math.inf
    draws_per_image: ClassVar[bool] = True
    """Whether an image's draws are the same in any batch."""
    gradient_free: ClassVar[bool] = False
    """Whether it only asks the model for logits."""
    weak: ClassVar[bool] = False
    """Whether it is known to overstate robustness; its verdicts are flagged."""

    epsilon: float
    num_steps: int
    num_restarts: int = 1

    def __post_init__(self) -> None:
        where = f"(attacks.{self.name})"
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError(f"expected epsilon > 0, got {self.epsilon:g} {where}")
        if self.epsilon > self.max_epsilon:
            hint = f": write {self.epsilon:g}/255 for grey levels" if self.epsilon <= 255 else ""
            raise InputError(f"expected epsilon <= {self.max_epsilon:g}, got {self.epsilon:g} {where}{hint}")
        for count in ("num_steps", "num_restarts"):
            if getattr(self, count) < 1:
                raise InputError(f"expected {count} >= 1, got {getattr(self, count)} {where}")

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        seeds: Tensor | None = None,
        generator: torch.Generator | None = None,
        loss: Loss | None = None,
    ) -> Tensor:
        """The adversarial images of `run`."""
        return self.run(model, x, y, seeds=seeds, generator=generator, loss=loss).x

    def run(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        seeds: Tensor | None = None,
        generator: torch.Generator | None = None,
        loss: Loss | None = None,
        final_forward: bool = False,
        stop_when_broken: bool = False,
    ) -> View:
        """Attack x (B, C, H, W) with labels y (B,): num_steps forwards and input-backwards, one forward more if final.

        seeds: int64 (B,), one per image; or a generator, which draws them: exactly one of the two.
        loss: (logits, y) -> (B,), what the attack maximises; its own `objective` if None.
        final_forward: evaluate the result as well (an attack that returns an evaluated iterate needs no more).
        stop_when_broken: images may leave the batch once misclassified; x is then the iterate that broke them.
        """
        self._check(x, y)
        with torch.inference_mode(False), torch.no_grad(), _frozen(model):
            seeds = _seeds(x, seeds, generator)
            x, y = x.clone(memory_format=torch.contiguous_format), y.clone()
            called = _under_autocast(model, x.device.type)
            with torch.autocast(x.device.type, enabled=False):
                view = self._restarted(called, x, y, seeds, loss or self.objective, final_forward, stop_when_broken)
        return dataclasses.replace(view, x=view.x.clamp(0, 1))

    def _restarted(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View:
        evaluated = final_forward or self.num_restarts > 1
        view = self._run(model, x, y, seeds, loss, evaluated, stop)
        changed = {"random_start": True} if hasattr(self, "random_start") else {}
        elsewhere = dataclasses.replace(self, **changed) if self.num_restarts > 1 else self
        for restart in range(1, self.num_restarts):
            rows = view.robust_all.nonzero()[:, 0] if stop else torch.arange(len(x), device=x.device)
            if not len(rows):
                break
            drawn = noise.derive(seeds[rows], restart)
            view = _stronger(view, rows, elsewhere._run(model, x[rows], y[rows], drawn, loss, evaluated, stop))
        return view

    @abstractmethod
    def _run(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View: ...

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        """What the attack maximises if nothing else is said, (B,)."""
        return losses.cross_entropy(logits, y)

    def bind(self, reference: nn.Module) -> Self:
        """The same attack, its distance measured by `reference` where it measures one by a network: a frozen model
        that is not the one under attack, so that the threat stays the same while that one trains."""
        return self

    def with_steps(self, num_steps: int) -> Self:
        """The same attack with another number of steps, reaching equally far (num_steps * step_size is kept)."""
        return dataclasses.replace(self, num_steps=num_steps)

    def _check(self, x: Tensor, y: Tensor) -> None:
        if x.ndim != 4 or x.dtype != torch.float32 or not len(x):
            raise self.refuse(f"images of shape (B, C, H, W), B >= 1, float32, got {tuple(x.shape)} {x.dtype}")
        if y.shape != x.shape[:1] or y.dtype != torch.int64:
            raise self.refuse(f"labels of shape ({len(x)},), int64, got {tuple(y.shape)} {y.dtype}")

    def refuse(self, rule: str) -> InputError:
        return InputError(f"expected {rule} (attacks.{self.name})")


ATTACKS: Registry[type[Attack]] = Registry(
    "attack", "attacks", "attacks.semantic", "attacks.perceptual", "attacks.evaluation"
)


def _stronger(view: View, rows: Tensor, other: View) -> View:
    """The view, with what another run of some of its rows found: where that broke them, else where its loss is higher.

    An image that `view` broke keeps its own, unless both did and the other's loss is higher."""
    mine, theirs = view.robust_all[rows], other.robust_all
    take = (mine & ~theirs) | ((mine == theirs) & (other.loss > view.loss[rows]))
    wide = take[:, None, None, None]
    return dataclasses.replace(
        view,
        x=view.x.index_copy(0, rows, torch.where(wide, other.x, view.x[rows])),
        loss=view.loss.index_copy(0, rows, torch.where(take, other.loss, view.loss[rows])),
        robust_all=view.robust_all.index_copy(0, rows, mine & theirs),
        steps_correct=view.steps_correct.index_add(0, rows, other.steps_correct),
        stages=(),
    )


def evaluate(model: Model, loss: Loss, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and loss (B,), under the caller's grad mode."""
    logits = model(x)
    values = loss(logits, y)
    if values.shape != y.shape:
        want, got = tuple(y.shape), tuple(values.shape)
        raise InputError(f"expected loss(logits, y) of shape {want}, got {got}: one number for each image")
    return logits, values


def _seeds(x: Tensor, seeds: Tensor | None, generator: torch.Generator | None) -> Tensor:
    if (seeds is None) == (generator is None):
        raise InputError("expected exactly one of seeds and generator")
    if generator is not None:
        seeds = torch.randint(-(2**63), 2**63 - 1, (len(x),), generator=generator, device=generator.device)
    assert seeds is not None
    if seeds.shape != x.shape[:1] or seeds.dtype != torch.int64:
        raise InputError(f"expected seeds of shape ({len(x)},), int64, got {tuple(seeds.shape)} {seeds.dtype}")
    return seeds.to(x.device)


@contextlib.contextmanager
def _frozen(model: Model) -> Iterator[None]:
    """Eval mode for the duration; afterwards every submodule has the mode it had."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _under_autocast(model: Model, device_type: str) -> Model:
    """The model under the caller's autocast, if one is on: the attack's own arithmetic stays in fp32 all the same."""
    if not torch.is_autocast_enabled(device_type):
        return model
    dtype = torch.get_autocast_dtype(device_type)

    def call(x: Tensor) -> Tensor:
        with torch.autocast(device_type, dtype=dtype):
            return model(x).float()

    return call
