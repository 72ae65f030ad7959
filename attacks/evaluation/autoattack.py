"""AutoAttack (Croce and Hein 2020, 2021) and its parts, run by pyautoattack 0.2 behind the fence of `foreign`.

For each of the norms linf, l2, l1: apgd-ce-, apgd-t-, fab-t-, square-, autoattack- (their version "standard"),
autoattack-plus-, autoattack-rand- and autoattack-custom-<norm>.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from torch import Tensor

from attacks.base import ATTACKS, Attack, Loss, Model, View
from attacks.evaluation import foreign
from attacks.evaluation.ensemble import OwnLoss, Survivors
from attacks.evaluation.foreign import Part


@dataclass(frozen=True, kw_only=True)
class AutoAttack(OwnLoss, Attack):
    """Their parts one after the other, each on the images that are still robust; clean errors are left out.

    An image that nothing breaks is returned as it was: these attacks judge a model, they are no use to train one.
    View.stages has each part and who was robust after it; View.steps_correct counts the parts that an image survived.
    num_steps: iterations of APGD and FAB; Square asks 50 * num_steps queries.
    Draws: their global generator, seeded from the batch's seeds and set back afterwards, so an image's draws depend on
    its batch (draws_per_image is False). All parts get the same seed, as theirs do.
    Waits for the device in every step. Deviations: what their code cannot do is fenced, see attacks.evaluation.foreign;
    an image is broken only if a forward of ours says so of it, in the budget (checked in fp64). Their checks for
    randomised or gradient-masking defences are not run: this project has flags of its own for those.
    """

    family: ClassVar[str] = "lp"
    draws_per_image: ClassVar[bool] = False

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """What is run, in order."""

    def _run(
        self, model: Model, x: Tensor, y: Tensor, seeds: Tensor, loss: Loss, final_forward: bool, stop: bool
    ) -> View:
        norm, parts = str(self.norm), self.parts()
        if not all(foreign.fits(part, norm, *x.shape[2:]) for part in parts):
            height, width = x.shape[2:]
            raise self.refuse(f"a height and width that Square's first pattern fits, such as 32, got {height}x{width}")
        left = Survivors(self, model, x, y, loss)
        num_classes, seed = left.logits.shape[1], foreign.global_seed(seeds)
        budget = foreign.Budget(norm, self.epsilon, self.num_steps, num_classes, seed)
        for part in parts:
            if len(rows := left.rows()):
                left.offer(rows, foreign.perturb(part, budget, model, x[rows], y[rows]))
            left.close(part.name)
        return left.view()


def _standard(name: str, norm: str | None) -> Part:
    """A part as the standard version sets it; l1 has its own: APGD in three radii, 5 restarts or 5 targets."""
    if norm != "l1" or not name.startswith("apgd"):
        return Part(name)
    return Part(name, targets=5, radii=True) if name == "apgd-t" else Part(name, restarts=5, radii=True)


T = TypeVar("T", bound=type[Attack])


def _in_each_norm(prefix: str) -> Callable[[T], T]:
    """Registers a subclass for each norm, <prefix>-<norm>, that its module knows, so that it can be pickled."""

    def register(version: T) -> T:
        module = sys.modules[version.__module__]
        for norm, largest in (("linf", 1.0), ("l2", float("inf")), ("l1", float("inf"))):
            title, name = f"{version.__name__}{norm.capitalize()}", f"{prefix}-{norm}"
            described = {"__module__": module.__name__, "__doc__": version.__doc__, "__qualname__": title}
            made = type(title, (version,), described | {"name": name, "norm": norm, "max_epsilon": largest})
            setattr(module, title, ATTACKS.register(name)(dataclass(frozen=True, kw_only=True)(made)))
        return version

    return register


@_in_each_norm("apgd-ce")
@dataclass(frozen=True, kw_only=True)
class APGDCE(AutoAttack):
    """APGD on cross entropy from a random start. Cost: num_steps + 1 forwards and input-backwards; in l1 5 times it."""

    def parts(self) -> tuple[Part, ...]:
        return (_standard("apgd-ce", self.norm),)


@_in_each_norm("apgd-t")
@dataclass(frozen=True, kw_only=True)
class APGDT(AutoAttack):
    """APGD on the targeted DLR loss for the 9 likeliest other classes, 5 in l1. Cost: APGD-CE's for each of them."""

    def parts(self) -> tuple[Part, ...]:
        return (_standard("apgd-t", self.norm),)


@_in_each_norm("fab-t")
@dataclass(frozen=True, kw_only=True)
class FABT(AutoAttack):
    """FAB (least norm) towards the 9 likeliest other classes. Cost: 18 * num_steps forwards, half the backwards."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("fab-t"),)


@_in_each_norm("square")
@dataclass(frozen=True, kw_only=True)
class Square(AutoAttack):
    """Square, a random search. Cost: 50 * num_steps forwards, no backward; an image leaves once it is broken."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("square"),)


@_in_each_norm("autoattack")
@dataclass(frozen=True, kw_only=True)
class Standard(AutoAttack):
    """APGD-CE, APGD-T, FAB-T, Square. Cost for an image that survives: 7,800 forwards, 1,900 backwards."""

    def parts(self) -> tuple[Part, ...]:
        return tuple(_standard(name, self.norm) for name in ("apgd-ce", "apgd-t", "fab-t", "square"))


@_in_each_norm("autoattack-plus")
@dataclass(frozen=True, kw_only=True)
class Plus(AutoAttack):
    """APGD-CE, APGD-DLR and FAB with 5 restarts each, Square, APGD-T and FAB-T; in l1 without the three radii."""

    def parts(self) -> tuple[Part, ...]:
        several = tuple(Part(name, restarts=5) for name in ("apgd-ce", "apgd-dlr", "fab"))
        return (*several, Part("square"), Part("apgd-t"), Part("fab-t"))


@_in_each_norm("autoattack-rand")
@dataclass(frozen=True, kw_only=True)
class Rand(AutoAttack):
    """For models that draw in their forward: APGD-CE and APGD-DLR, each gradient the mean of 20."""

    def parts(self) -> tuple[Part, ...]:
        return Part("apgd-ce", eot=20), Part("apgd-dlr", eot=20)


@_in_each_norm("autoattack-custom")
@dataclass(frozen=True, kw_only=True)
class Custom(AutoAttack):
    """The components named, in the order given, each as in the standard version; apgd-dlr as apgd-ce, fab untargeted.

    By default E-AT's evaluation: APGD-CE and APGD-T. `num_targets`, where it is set, is that of the targeted ones.
    """

    components: tuple[str, ...] = ("apgd-ce", "apgd-t")
    num_targets: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.components or not set(self.components) <= set(foreign.NAMES):
            raise self.refuse(f"components among {', '.join(foreign.NAMES)}, got {self.components}")
        if self.num_targets is not None and self.num_targets < 1:
            raise self.refuse(f"num_targets >= 1, got {self.num_targets}")

    def parts(self) -> tuple[Part, ...]:
        parts = [_standard(name, self.norm) for name in self.components]
        return tuple(parts if self.num_targets is None else [replace(p, targets=self.num_targets) for p in parts])
