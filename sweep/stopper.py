"""Early stopping as Tune asks for it: a neighbour of the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from sweep.alternatives import Sweep
from sweep.stopping import NONE

EPOCH, VALUE = "epoch", "value"


def stopper(sweep: Sweep) -> Stopper | None:
    return None if sweep.stopping.name == NONE else Stopper(sweep)


@dataclass(frozen=True)
class _Earlier:
    """What a scheduler asks of a trial, of a run that ended under an earlier driver."""

    trial_id: str
    config: Mapping[str, Any]


class Stopper(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA, or with several brackets asynchronous Hyperband, on the values that runs are judged by on the way.

    A report holds all values of its run so far: a run that goes on after a kill, or whose reports were lost, is decided
    on as if undisturbed. There is none at a run's last epoch, so that no run ends before its final judgement. Controls
    and what confirms the best run to their end.
    """

    def __init__(self, sweep: Sweep) -> None:
        rules, epochs = sweep.stopping, sweep.most_epochs()
        super().__init__(
            time_attr=EPOCH,
            metric=VALUE,
            mode="max",
            max_t=epochs,
            grace_period=rules.grace,
            reduction_factor=rules.reduction,
            brackets=rules.brackets(epochs),
            stop_last_trials=False,
        )
        self.seed = sweep.trial.seed
        self.stopped: dict[str, int] = {}
        """Tune's id of a trial that was stopped -> the epoch whose value decided that."""

    def recall(self, key: str, number: int, values: Mapping[str, float]) -> None:
        """A run that ended under an earlier driver, with its values by epoch: what comes is compared with it too."""
        trial = _Earlier(key, {"task": {"number": number}})
        self.on_trial_add(None, trial)
        self._decided(None, trial, values)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Deals the configuration to a bracket, the same one whoever drives; Ray draws it anew."""
        rungs = np.array([len(bracket._rungs) for bracket in self._brackets])
        share = np.exp(rungs - rungs.max())
        rng = np.random.default_rng([self.seed, trial.config["task"]["number"]])
        self._trial_info[trial.trial_id] = self._brackets[rng.choice(len(rungs), p=share / share.sum())]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        task, said = trial.config["task"], result.get("so_far")
        if said is None or task["replay"] is not None or task["confirm"]:
            return str(TrialScheduler.CONTINUE)
        epoch = self._decided(tune_controller, trial, json.loads(said)["intermediate"] or {})
        if epoch is None:
            return str(TrialScheduler.CONTINUE)
        self.stopped[trial.trial_id] = epoch
        return str(TrialScheduler.STOP)

    def _decided(self, tune_controller: Any, trial: Any, values: Mapping[str, float]) -> int | None:
        """The first epoch whose value ends the run."""
        for epoch, value in sorted((int(text), value) for text, value in values.items()):
            said = super().on_trial_result(tune_controller, trial, {EPOCH: epoch, VALUE: value})
            if said == TrialScheduler.STOP:
                return epoch
        return None
