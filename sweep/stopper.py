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
    on as if undisturbed. There is none at a run's last epoch, so that no run ends before its final judgement.

    Only runs with the first seed are compared: those of a configuration with the others would have to win against it.
    They end with it. Controls and what confirms the best run to their end.
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
        self.sweep = sweep
        self.stopped: dict[str, int] = {}
        """Tune's id of a trial that was stopped -> the last epoch whose value is to count."""
        self.ended: set[int] = set()
        """The configurations whose run with the first seed was stopped."""

    def recall(self, key: str, task: Mapping[str, Any], values: Mapping[int, float]) -> None:
        """A run that ended under an earlier driver, with its values by epoch: what comes is compared with it too."""
        trial = _Earlier(key, {"task": task})
        self.on_trial_add(None, trial)
        self._decided(None, trial, values)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Deals the configuration to a bracket, the same one whoever drives; Ray draws it anew."""
        rungs = np.array([len(bracket._rungs) for bracket in self._brackets])
        share = np.exp(rungs - rungs.max())
        rng = np.random.default_rng([self.sweep.trial.seed, trial.config["task"]["number"]])
        self._trial_info[trial.trial_id] = self._brackets[rng.choice(len(rungs), p=share / share.sum())]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "so_far" in result:
            values = json.loads(result["so_far"])["intermediate"] or {}
            epoch = self._decided(tune_controller, trial, {int(text): value for text, value in values.items()})
            if epoch is not None:
                self.stopped[trial.trial_id] = epoch
                return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def _decided(self, tune_controller: Any, trial: Any, values: Mapping[int, float]) -> int | None:
        """The epoch that ends the run."""
        task = trial.config["task"]
        if task["replay"] is not None or task["confirm"]:
            return None
        if task["number"] in self.ended:
            return max(values, default=0)
        for epoch, value in sorted(values.items()) if task["seed"] == self.sweep.seeds[0] else ():
            said = super().on_trial_result(tune_controller, trial, {EPOCH: epoch, VALUE: value})
            if said == TrialScheduler.STOP:
                self.ended.add(task["number"])
                return epoch
        return None
