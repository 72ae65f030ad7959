"""Tune's searcher: plans trials, proposes them to Tune, and commits what becomes of them to the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from sweep.search import Study
from sweep.store import COMPLETE, FAILED, PLANNED
from sweep.trial import Job, Task

Listener = Callable[[str, Task, Mapping[str, Any]], None]
"""(event, task, facts): "start", "epoch" with the trial's metrics, "end" with its row."""


class Planner(Searcher):
    """A trial is planned, in plans/, before it starts, and its `trials` row, written last, is the commit.

    What an earlier driver planned and did not end comes first; then new trials, up to the sweep's number. Equal work is
    not run twice: a trial whose key has ended already, or is running, takes that one's outcome.
    """

    def __init__(self, job: Job, listen: Listener) -> None:
        super().__init__()
        self.job, self.listen = job, listen
        self.sweep = job.sweep  # once: it is validated anew each time the job is asked
        self.study = Study(self.sweep.search, self.sweep.defaults(), self.sweep.trial.seed, self.sweep.searcher)
        self.errors: dict[str, str] = {}
        self.running: dict[str, Task] = {}
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.twins: list[Task] = []
        self.pending: list[Task] = []
        self.planned = 0
        self._replay()

    def _replay(self) -> None:
        ended = {row["number"]: row for row in self.job.store.trials().to_pylist() if row["state"] != PLANNED}
        for plan in self.job.store.plans():
            task = Task(plan["number"], plan["params"], plan["key"])
            self.study.replay(task.number, task.params)
            self.planned += 1
            row = ended.get(task.number)
            if row is None:
                self.pending.append(task)
            else:
                self._note(task, row)

    def _note(self, task: Task, row: Mapping[str, Any]) -> None:
        self.study.tell(task.number, row["state"], row.get("value"))
        if row["state"] in (COMPLETE, FAILED):
            self.outcomes[task.key] = {name: row.get(name) for name in ("state", "value", "error")} | {"seconds": 0.0}

    def suggest(self, trial_id: str) -> Any:
        while (task := self._next()) is not None:
            if task.key in self.outcomes:
                self._commit(task, self.outcomes[task.key])
            elif any(task.key == other.key for other in self.running.values()):
                self.twins.append(task)
            else:
                self.running[trial_id] = task
                self.listen("start", task, {})
                return {"task": asdict(task)}
        return Searcher.FINISHED

    def _next(self) -> Task | None:
        if self.pending:
            return self.pending.pop(0)
        if self.planned >= self.sweep.trials:
            return None
        task = self._plan(self.planned)
        self.planned += 1
        return task

    def _plan(self, number: int) -> Task:
        params = self.study.ask(number)
        task = Task(number, params, self.job.key(self.sweep.configure(params)))
        trial = self.sweep.trial
        self.job.store.write_plan(number, asdict(task) | {"method": trial.method, "seed": trial.seed})
        return task

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" in result and trial_id in self.running:
            self.listen("epoch", self.running[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        task = self.running.pop(trial_id, None)
        if task is None:
            return
        outcome = (result or {}).get("outcome")
        if outcome is not None:
            self._commit(task, json.loads(outcome))
        elif error:
            self._commit(task, {"state": FAILED, "error": self.errors.pop(trial_id, "its process died repeatedly")})
        # else: ended from outside (Ctrl-C, a time limit): still planned

    def _commit(self, task: Task, outcome: Mapping[str, Any]) -> None:
        trial = self.sweep.trial
        row = {**asdict(task), **outcome, "method": trial.method, "seed": trial.seed, "revision": self.job.revision}
        row |= {name: datetime.fromisoformat(row[name]) for name in ("started", "finished") if name in row}
        self.job.store.commit_trial(row)
        self._note(task, row)
        self.listen("end", task, row)
        for twin in [twin for twin in self.twins if twin.key == task.key and task.key in self.outcomes]:
            self.twins.remove(twin)
            self._commit(twin, self.outcomes[task.key])

    def done(self) -> int:
        """How many trials have ended already."""
        return self.planned - len(self.pending) - len(self.running) - len(self.twins)

    def listener(self) -> tune.Callback:
        """Remembers why a trial's process failed: Tune tells a searcher only that it did."""
        return _Errors(self.errors)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, for the snapshots that Tune makes and nobody reads: the sweep's folder is the truth."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `__getstate__`."""


class _Errors(tune.Callback):
    def __init__(self, errors: dict[str, str]) -> None:
        self.errors = errors

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_pickled_error() or trial.get_error() or "").strip().splitlines()
        if lines:
            self.errors[trial.trial_id] = lines[-1]
