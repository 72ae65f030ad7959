"""MDE: EMA of the weights once an epoch, whose decay falls when robustness has grown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from attacks.errors import InputError
from trainers.averaging.ema import blend, snapshot
from trainers.parts import Gain, State, averagings


@averagings.register("mde")
@dataclass
class Mde:
    """decay = min(tau, 1 - d * gain), d = d2 in the warm-up (Eq. 8) and d3 after it (Eq. 10) of cas-three-phase; the
    gain is the mean over the attacks of the epoch's change in robust accuracy. theta_bar starts at the first weights,
    is reported and never trained from; batch-norm statistics are averaged with it.

    Deviations: decay is clamped at 0, for the printed formula turns negative (d3 = 50, a gain of 3 points: -0.5).
    `gain` says where the gain comes from: "probe", the same training images with the same seeds before and after the
    epoch (ours), or "train", the running accuracies on the training batches (SPEC G.3). Table 5's d_1 and d_2 are the
    text's d2 and d3. The paper's decays are for 20 epochs; of E epochs each uses decay ** (horizon / E), else a short
    training would report mostly its starting weights (ours, as SPEC G.5 has it for EMA); `horizon` = 0 takes the decay
    as printed.
    """

    tau: float = 0.95
    d2: float = 5.0
    d3: float = 50.0
    gain: str = "probe"
    horizon: int = 20
    companions: ClassVar[Sequence[str]] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.tau < 1:
            raise InputError(f"expected 0 <= tau < 1, got {self.tau}")
        for name in ("d2", "d3"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"expected {name} >= 0, got {getattr(self, name)}")
        if self.horizon < 0:
            raise InputError(f"expected horizon >= 0, got {self.horizon}")
        if self.gain not in ("probe", "train"):
            raise InputError(f"expected gain to be 'probe' or 'train', got {self.gain!r}")

    @property
    def wants_gain(self) -> str | None:
        return self.gain

    def start(self, model: nn.Module, steps_per_epoch: int, epochs: int) -> None:
        self._power = self.horizon / epochs if self.horizon else 1.0
        self._mean = snapshot(model)
        self._decay = float("nan")

    def after_step(self, model: nn.Module) -> None:
        pass

    def decay(self, gain: float, warm_up: bool) -> float:
        """The decay that Eq. 8 or 10 gives for a gain, clamped to [0, tau]."""
        d = self.d2 if warm_up else self.d3
        return max(0.0, min(self.tau, 1 - d * gain))

    def after_epoch(
        self, old: State, live: State, companions: Mapping[str, State], gain: Gain | None, warm_up: bool
    ) -> State | None:
        assert gain is not None, "wants_gain promised one"
        self._decay = self.decay(gain.mean, warm_up) ** self._power
        blend(self._mean, live, self._decay)
        return None

    def weights(self) -> State | None:
        return self._mean

    def record(self) -> dict[str, float]:
        return {"decay": self._decay}

    def state_dict(self) -> State:
        return self._mean

    def load_state_dict(self, state: State) -> None:
        self._mean = {name: value.clone() for name, value in state.items()}
