"""The sampler of CAS as a bandit: attacks drawn by how much training on them lowers the losses, theirs and others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.errors import InputError
from trainers.parts import Batch, Seen, State, samplers
from trainers.samplers.sat import draw

if TYPE_CHECKING:
    from trainers.tradeoff import Prior

ABSCISSAE = ("global", "ordinal")
LEAST_LOSS = 1e-8
EXPONENTS = (-700.0, 20.0)
"""Above, one attack would have it all; below, exp is 0 in float64, and without UCB all could be."""


@samplers.register("cas-bandit")
@dataclass
class CasBandit:
    """Calibrated adversarial sampling as a bandit (cas-bandit, Sec. 4, Alg. 1). L[k] is the mean cross entropy on the
    adversarial batch, before the update; N[k] the picks of attack k, counted from 1 (Sec. 4.3; Alg. 1 has 0, which
    Eq. 9 divides by).

    Eq. 6: self[v] = -w[v] * slope of log L[v] over its last `window` batches (W; the paper gives no value).
    Eq. 7: tradeoff[v] = sum over k != v of w[k] * n[v][k] / sum_j n[j][k] * log(L[k] before last / L[k] last), n[v][k]
    the picks of v strictly between the two latest of k; nothing from a k picked twice in a row, or not yet twice.
    Eq. 5, 9, 10: p[v] ∝ w[v] * (exp(alpha * (self[v] + tradeoff[v])) + sqrt(2 log(sum_j N[j]) / N[v])).

    w[v] counts twice, in Eq. 6 and in Eq. 10, as printed. In the rewards it is a share of the sum of all weights:
    with the paper's 6 and 1 as they stand (`normalised=False`), exp(10 R) runs away, and within a few hundred batches
    one attack is drawn always (docs/results.md). Where the paper is silent (SPEC G.4): the window holds the
    last W batches that v itself trained, since no others tell its loss, and the slope is per batch of the run
    ("global", Eq. 6 to the letter) or per batch of v ("ordinal": about as many times steeper as there are attacks); one
    batch has no slope, so it is 0; log L is of L >= 1e-8, the exponent at most 20. The ablations of Table 4 are
    `tradeoff_reward` and `ucb`; `self_reward` drops Eq. 6. Beta is the objective's, not a sampler's.
    """

    alpha: float = 10.0
    window: int = 10
    abscissa: str = "global"
    self_reward: bool = True
    tradeoff_reward: bool = True
    ucb: bool = True
    normalised: bool = True
    needs_prior: ClassVar[bool] = False
    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise InputError(f"expected alpha >= 0, got {self.alpha}")
        if not isinstance(self.window, int) or self.window < 2:
            raise InputError(f"expected a whole window >= 2, got {self.window}")
        if self.abscissa not in ABSCISSAE:
            raise InputError(f"expected abscissa global or ordinal, got {self.abscissa!r}")
        for name in ("self_reward", "tradeoff_reward", "ucb", "normalised"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"expected {name} true or false, got {getattr(self, name)!r}")

    def start(self, attacks: Sequence[str], weights: Mapping[str, float], prior: Prior | None) -> None:
        m, exact = len(attacks), torch.float64
        self._attacks = list(attacks)
        self._weights = torch.tensor([weights[a] for a in attacks], dtype=exact)
        if self.normalised:
            self._weights /= self._weights.sum()
        self._batches = torch.zeros((), dtype=exact)
        self._picks = torch.ones(m, dtype=exact)
        self._log_losses = torch.zeros(m, self.window, dtype=exact)  # the newest last; of its last picks - 1 places
        self._when = torch.zeros(m, self.window, dtype=exact)  # in the count of batches
        self._since = torch.zeros(m, m, dtype=exact)  # [v, k]: picks of v since the latest of k
        self._between = torch.zeros(m, m, dtype=exact)  # [v, k]: n[v][k]

    def probabilities(self, batch: Batch | None) -> Mapping[str, float]:
        """The same for every batch."""
        score = (self.alpha * self._rewards()).clamp(*EXPONENTS).exp()
        if self.ucb:
            score = score + (2 * self._picks.sum().log() / self._picks).sqrt()
        p = score * self._weights
        return dict(zip(self._attacks, (p / p.sum()).tolist(), strict=True))

    def _rewards(self) -> Tensor:
        """R (m,), Eq. 5."""
        zero = torch.zeros_like(self._weights)
        mine = -self._slopes() * self._weights if self.self_reward else zero
        return mine + (self._tradeoff() if self.tradeoff_reward else zero)

    def _slopes(self) -> Tensor:
        """Least squares through each attack's window, 0 where it holds fewer than two losses."""
        places = torch.arange(self.window, dtype=torch.float64)
        held = (places >= self.window - (self._picks[:, None] - 1)).double()
        x = self._when if self.abscissa == "global" else places
        dx = held * (x - (held * x).sum(1, keepdim=True) / held.sum(1, keepdim=True).clamp(min=1))
        spread = (dx * dx).sum(1)
        return (dx * self._log_losses).sum(1) / spread.where(spread > 0, torch.ones_like(spread))

    def _tradeoff(self) -> Tensor:
        fall = (self._log_losses[:, -2] - self._log_losses[:, -1]) * (self._picks > 2)
        return self._between @ (self._weights * fall / self._between.sum(0).clamp(min=1))

    def choose(self, batch: Batch, rng: np.random.Generator) -> list[str]:
        return draw(self.probabilities(batch), rng)

    def observe(self, batch: Batch, seen: Sequence[Seen]) -> None:
        met = [self._attacks.index(s.attack) for s in seen]
        losses = torch.stack([s.ce.double().mean() for s in seen])
        for history, newest in ((self._log_losses, losses.clamp(min=LEAST_LOSS).log()), (self._when, self._batches)):
            history[met] = history[met].roll(-1, 1)
            history[met, -1] = newest
        self._between[:, met] = self._since[:, met]
        self._since[met] += 1
        self._since[:, met] = 0
        self._picks[met] += 1
        self._batches += 1

    def record(self) -> dict[str, Any]:
        """The rewards R after the last batch."""
        return {"rewards": dict(zip(self._attacks, self._rewards().tolist(), strict=True))}

    def state_dict(self) -> State:
        return {
            "batches": self._batches,
            "picks": self._picks,
            "log_losses": self._log_losses,
            "when": self._when,
            "since": self._since,
            "between": self._between,
        }

    def load_state_dict(self, state: State) -> None:
        for name in self.state_dict():
            setattr(self, f"_{name}", state[name].clone())
