"""Tune's searcher: plans trials, proposes them to Tune, and commits what becomes of them to the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from sweep import logs
from sweep.confirmation import owed
from sweep.control import Control
from sweep.goals import metrics, on_the_way, values_by_epoch
from sweep.packing import Packing
from sweep.search import WARM_START, searcher
from sweep.stopper import stopper
from sweep.store import COMPLETE, FAILED, PRUNED, overall
from sweep.trial import Job, Task

_OUTCOME = ("state", "value", "metrics", "error", "intermediate")
"""The columns that equal work shares."""
Listener = Callable[[str, Task, Mapping[str, Any]], None]
"""(event, task, facts): "start", "epoch" with the trial's metrics, "end" with its row."""


class Planner(Searcher):
    """A configuration is planned, in plans/, with one run a seed, before it starts, and the `trials` row of a run,
    written last, is its commit.

    What an earlier driver planned and did not end comes first; then new configurations, up to the sweep's number; then
    further seeds of the best ones, where they are to be confirmed. Equal work is not run twice: a run whose key has
    ended already, or is running, takes that one's outcome. A configuration is PRUNED with the first of its runs that
    is: no other seed of it begins.
    """

    def __init__(
        self,
        job: Job,
        listen: Listener,
        control: Control,
        retry_failed: bool = False,
        packing: Packing = Packing(0.0),  # noqa: B008
    ) -> None:
        super().__init__()
        self.job, self.listen, self.control, self.packing = job, listen, control, packing
        self.sweep = job.sweep  # once: it is validated anew each time the job is asked
        self.search = searcher(self.sweep, job.store.document().get(WARM_START, {}).get("trials", ()))
        self.stopper = stopper(self.sweep)
        self.errors: dict[str, str] = {}
        self.running: dict[str, Task] = {}
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.twins: list[Task] = []
        self.pending: list[Task] = []
        self.plans: list[list[Task]] = []
        self.ended: dict[tuple[int, str], Mapping[str, Any]] = {}
        self._replay({FAILED} if retry_failed else set())

    def _replay(self, again: Collection[str]) -> None:
        """What earlier drivers planned and ended; runs that ended in one of the states `again` are to be run anew."""
        ended = {(row["number"], row["key"]): row for row in self.job.store.ended() if row["state"] not in again}
        for plan in self.job.store.plans():
            tasks = [Task(plan["number"], plan["params"], **run) for run in plan["runs"]]
            self.search.replay(plan["number"], plan["params"])
            self.plans.append(tasks)
            for task in list(tasks):
                row = ended.get((task.number, task.key))
                if row is None:
                    self.pending.append(task)
                else:
                    self._recall(task, row)
                    self._note(task, row)

    def _recall(self, task: Task, row: Mapping[str, Any]) -> None:
        """Tells the stopper of a run that ended; equal work was run once."""
        if self.stopper and task.key not in self.outcomes:
            self.stopper.recall(task.key, asdict(task), values_by_epoch(row))

    def _searched(self, task: Task) -> bool:
        """Whether the search goes by a run."""
        return task.replay is None and not task.confirm

    def _note(self, task: Task, row: Mapping[str, Any]) -> None:
        self.outcomes[task.key] = {name: row.get(name) for name in _OUTCOME} | {"seconds": 0.0}
        self.ended[task.number, task.key] = row
        self.control.ended(row)
        self.packing.ended(row)
        if self.packing.memory:
            self.control.gpus = self.packing.share
        self._owe_replay(task, row)
        found = [self.ended.get((one.number, one.key)) for one in self.plans[task.number] if self._searched(one)]
        if len(rows := [row for row in found if row]) == len(found):
            self._tell(task.number, rows)

    def _tell(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tells the search what a configuration reached, the mean over its seeds."""
        state, value = overall(rows)
        goal, reached = self.sweep.goal, {} if value is None else metrics(rows)
        self.search.tell(number, state, goal.values(reached), on_the_way(rows), goal.violations(reached))

    def _owe_replay(self, task: Task, row: Mapping[str, Any]) -> None:
        """Plans the control of a run: its average probabilities, held fixed."""
        tasks = self.plans[task.number]
        wanted = self.sweep.controls and task.replay is None and row["state"] == COMPLETE
        if not wanted or any(one.seed == task.seed and one.replay is not None for one in tasks):
            return
        trial = self.sweep.configure(task.params, task.seed)
        if trial.adapts():
            fixed = self.job.store.probabilities(task.key)
            self._add(task.number, [replace(task, key=self.job.key(trial.replaying(fixed)), replay=fixed)])

    def suggest(self, trial_id: str) -> Any:
        if not self.control.reason and not self.packing.admits(len(self.running)):
            return None
        while not self.control.reason and (task := self._next()) is not None:
            if task.key in self.outcomes:
                self._commit(task, self.outcomes[task.key])
            elif (stopped := self._stopped(task)) is not None:
                self._commit(task, {"state": PRUNED, "error": f"seed {stopped} was stopped early"})
            elif any(task.key == other.key for other in self.running.values()):
                self.twins.append(task)
            else:
                self.running[trial_id] = task
                self.listen("start", task, {})
                return {"task": asdict(task), "gpus": self.packing.share}
        more = (self.sweep.controls or self.sweep.confirm) and not self.control.reason
        return None if self.running and more else Searcher.FINISHED

    def _stopped(self, task: Task) -> int | None:
        """The seed with which the search's run of the same configuration was PRUNED, if one was."""
        mine = [one for one in self.plans[task.number] if self._searched(one)]
        states = {one.seed: self.ended.get((one.number, one.key), {}).get("state") for one in mine}
        return next((seed for seed, state in states.items() if state == PRUNED), None) if task in mine else None

    def _next(self) -> Task | None:
        if not self.pending and len(self.plans) < self.sweep.trials:
            self._plan(len(self.plans))
        if not self.pending and not self.running:
            self._confirm()
        return self.pending.pop(0) if self.pending else None

    def _plan(self, number: int) -> None:
        params = self.search.ask(number)
        self.plans.append([])
        self._add(number, [self._task(number, params, seed) for seed in self.sweep.seeds])

    def _confirm(self) -> None:
        """Plans what is owed to the best configurations, once the search is over."""
        for number, params, seeds in owed(self.sweep, self.job.store):
            self._add(number, [self._task(number, params, seed, confirm=True) for seed in seeds])

    def _task(self, number: int, params: dict[str, Any], seed: int, confirm: bool = False) -> Task:
        return Task(number, params, self.job.key(self.sweep.configure(params, seed)), seed, confirm=confirm)

    def _add(self, number: int, tasks: list[Task]) -> None:
        self.plans[number] += tasks
        self._write(self.plans[number])
        self.pending += tasks

    def _write(self, tasks: list[Task]) -> None:
        first = tasks[0]
        runs = [{name: run[name] for name in ("key", "seed", "replay", "confirm")} for run in map(asdict, tasks)]
        plan = {"params": first.params, "method": self.sweep.name(first.params), "runs": runs}
        self.job.store.write_plan(first.number, plan)

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
        elif self.stopper and trial_id in self.stopper.stopped:
            self._commit(task, _pruned(json.loads((result or {})["so_far"]), self.stopper.stopped[trial_id]))
        elif error:
            why = self.errors.pop(trial_id, "its process died repeatedly")
            last = logs.read(self.job.store.folder, task.key)[-1:]
            self._commit(task, {"state": FAILED, "error": "; the last of its log: ".join([why, *last])})
        # else: ended from outside (Ctrl-C, a time limit): still planned

    def _commit(self, task: Task, outcome: Mapping[str, Any]) -> None:
        about = {name: getattr(task, name) for name in ("number", "params", "key", "seed", "confirm")}
        about |= {"method": self.sweep.name(task.params), "replay": task.replay is not None}
        row = {**about, **outcome, "revision": self.job.revision}
        row |= {name: datetime.fromisoformat(row[name]) for name in ("started", "finished") if name in row}
        self.job.store.commit_trial(row)
        self._note(task, row)
        self.listen("end", task, row)
        while twin := next((one for one in self.twins if one.key in self.outcomes), None):
            self.twins.remove(twin)
            self._commit(twin, self.outcomes[twin.key])

    def done(self) -> int:
        """How many runs have ended already."""
        return len(self.ended)

    def best(self) -> tuple[Task, Mapping[str, Any]] | None:
        """The run of the highest value so far, and its row."""
        tasks = {(task.number, task.key): task for tasks in self.plans for task in tasks}
        complete = [(tasks[run], row) for run, row in self.ended.items() if row["state"] == COMPLETE]
        return max(complete, key=lambda one: one[1]["value"], default=None)

    def listener(self) -> tune.Callback:
        """Remembers why a trial's process failed, since Tune tells a searcher only that it did; and looks, while trials
        run, what was asked of the driver."""
        return _Listener(self.errors, self.control)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, for the snapshots that Tune makes and nobody reads: the sweep's folder is the truth."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `__getstate__`."""


def _pruned(so_far: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """The outcome of a run that was stopped for its value at an epoch, of what it said last: it may have gone on."""
    values = {at: value for at, value in values_by_epoch(so_far).items() if at <= epoch}
    return {**so_far, "state": PRUNED, "intermediate": values}


class _Listener(tune.Callback):
    def __init__(self, errors: dict[str, str], control: Control) -> None:
        self.errors, self.control = errors, control

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.control.poll()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_pickled_error() or trial.get_error() or "").strip().splitlines()
        if lines:
            self.errors[trial.trial_id] = lines[-1]
