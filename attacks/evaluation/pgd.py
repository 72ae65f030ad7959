"""The l-infinity PGDs that papers evaluate with, and PGD with restarts: the loop of attacks/lp.py at their settings.

Source: VIR, section 5.4 (fgsm, pgd-20, pgd-100, cw); MSD and AdaptiveBudget, section 5 (the restarts). VIR names the
number of steps and their size, 1/255 at epsilon 8/255, but no start: here it is random, except for fgsm's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attacks import losses
from attacks.base import ATTACKS
from attacks.lp import PGDL1, PGDL2, PGDLinf


@ATTACKS.register("fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM(PGDLinf):
    """One signed step of size epsilon from the clean image (Goodfellow et al. 2015).

    The step is clipped to the ball, so that any step_size >= epsilon is this attack, at any epsilon.
    """

    name: ClassVar[str] = "fgsm"

    num_steps: int = 1
    step_size: float = 1.0


@ATTACKS.register("pgd-20")
@dataclass(frozen=True, kw_only=True)
class PGD20(PGDLinf):
    name: ClassVar[str] = "pgd-20"

    random_start: bool = True


@ATTACKS.register("pgd-100")
@dataclass(frozen=True, kw_only=True)
class PGD100(PGDLinf):
    name: ClassVar[str] = "pgd-100"

    random_start: bool = True


@ATTACKS.register("cw")
@dataclass(frozen=True, kw_only=True)
class CW(PGDLinf):
    """Carlini and Wagner's margin, max of the other logits minus the label's, climbed by PGD-20.

    The margin is not cut off below at a confidence: an image already misclassified is driven further.
    """

    name: ClassVar[str] = "cw"

    random_start: bool = True

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        return losses.margin(logits, y)


@ATTACKS.register("pgd-linf-restarts")
@dataclass(frozen=True, kw_only=True)
class PGDLinfRestarts(PGDLinf):
    """The first run starts at the clean image, the others at random points of the ball."""

    name: ClassVar[str] = "pgd-linf-restarts"


@ATTACKS.register("pgd-l2-restarts")
@dataclass(frozen=True, kw_only=True)
class PGDL2Restarts(PGDL2):
    """The first run starts at the clean image, the others at random points of the sphere."""

    name: ClassVar[str] = "pgd-l2-restarts"


@ATTACKS.register("pgd-l1-restarts")
@dataclass(frozen=True, kw_only=True)
class PGDL1Restarts(PGDL1):
    """The first run starts at the clean image, the others at random points of the ball.

    PGD is weak in l1, restarts or not: it overstates robustness, see `autoattack-l1`.
    """

    name: ClassVar[str] = "pgd-l1-restarts"
