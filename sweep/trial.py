"""What a worker does for one trial: fine-tune, judge, write its results. Knows nothing of Ray."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attacks.errors import InputError
from sweep import alternatives, memory, reached, tables, watch
from sweep.alternatives import Sweep
from sweep.logs import Log
from sweep.priors import Priors, recipe, training_attacks
from sweep.spec import TrialBase
from sweep.storage import PATIENCE_SECONDS, Storage
from sweep.store import Store
from sweep.verdicts import Subject, rows
from sweep.watchdog import HANG_SECONDS, Watchdog
from trainers import checkpoint, loop, methods
from trainers.data import Dataset, ImageSet
from trainers.evaluate import FLAGS, Verdict, evaluate
from trainers.models import io
from trainers.parts import State
from trainers.step import Diverged
from trainers.workers import Workers

_log = logging.getLogger(__name__)
Report = Callable[[dict[str, Any]], bool]
"""Metrics -> go on?"""
FAULTS = (Diverged, InputError, RuntimeError, ValueError, ArithmeticError, MemoryError)
"""What a trial may end with: its own fault, and not its process's."""
_JUDGED_AT_ONCE = "judged-at-once"


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep share, as plain data: it travels to the workers. `init` names the starting model's
    weights. A trial's process that makes no progress for `hang_seconds` ends itself."""

    storage: str
    sweep_id: str
    document: dict[str, Any]
    init: str
    fingerprint: str
    revision: str
    hang_seconds: float = HANG_SECONDS

    @property
    def sweep(self) -> Sweep:
        return alternatives.reload(self.document)

    @property
    def store(self) -> Store:
        """Of a storage that is waited for where it is away."""
        return Store(Storage(self.storage, PATIENCE_SECONDS), self.sweep_id)

    @property
    def priors(self) -> Priors:
        return Priors(self.store.storage, self.init, self.fingerprint)

    def key(self, trial: TrialBase) -> str:
        return trial.key(init=self.init, fingerprint=self.fingerprint)

    def subject(self, task: Task, weights: str) -> Subject:
        """Whose verdicts a run's are."""
        sweep = self.sweep
        method = sweep.name(task.params) + (tables.REPLAY if task.replay else "")
        return Subject(task.key, task.number, method, weights, task.of(sweep).recipe().epochs)


@dataclass(frozen=True)
class Task:
    """One planned run: its configuration's number and values at the searched addresses, the key of the work, and its
    seed. A control has the probabilities, by attack, that it replays. `confirm`: it came after the search, which does
    not go by it."""

    number: int
    params: dict[str, Any]
    key: str
    seed: int
    replay: dict[str, float] | None = None
    confirm: bool = False

    def of(self, sweep: Sweep) -> TrialBase:
        """The trial that it is of its sweep."""
        trial = sweep.configure(self.params, self.seed)
        return trial if self.replay is None else trial.replaying(self.replay)


def run(job: Job, task: Task, images: Dataset, init: bytes, workers: Workers, report: Report) -> dict[str, Any] | None:
    """Trains and judges one trial and returns its outcome, the columns of its `trials` row; None where `report` ended
    it early. Work whose outcome is stored is not done again; work begun is gone on with. A trial that diverges or
    raises has the outcome FAILED, with the reason; one that runs out of memory is gone on with once, judging half as
    many images at a time. All files are in place before the outcome is.

    What one of several workers raises is raised, but for what all of them do: the others wait for it, and the group is
    to be begun anew.
    """
    if (done := _stored(job, task)) is not None:
        return done
    memory.forget()
    started, attempts = datetime.now(UTC), _attempts(job, task, workers)
    values: dict[int, float] = {}
    log = Log(job.store.folder, task.key, workers.rank)

    def so_far(epoch: float = math.inf) -> dict[str, Any]:
        """The columns of its row but for what became of it, with the values up to an epoch."""
        finished = datetime.now(UTC)
        seen = {at: value for at, value in values.items() if at <= epoch} or None
        times = {"started": started.isoformat(), "finished": finished.isoformat()}
        about = {"seconds": (finished - started).total_seconds(), "attempts": attempts, "intermediate": seen}
        where = {"host": socket.gethostname(), "device": device_name(), "peak_memory": memory.peak()}
        return times | about | where

    def told(metrics: dict[str, Any]) -> bool:
        log.flush()
        return report(metrics | {"so_far": json.dumps(so_far(metrics["epoch"]))})

    with log, Watchdog(job.hang_seconds, log.last_words) as watchdog:
        where = f"process {os.getpid()} on {socket.gethostname()} ({device_name()})"
        _log.info("attempt %d of trial %d, seed %d, by %s", attempts, task.number, task.seed, where)
        log.flush()
        outcome = _Attempt(job, task, images, init, workers, told, watchdog, values).outcome()
    if outcome is None:
        return None
    outcome |= so_far()
    if workers.rank == 0 and outcome["state"] == "COMPLETE":
        _folder(job, task).write("outcome.json", json.dumps(outcome).encode())
        checkpoint.clear(_folder(job, task))
    return outcome


@dataclass(frozen=True)
class _Attempt:
    """What one process does for a trial. `values`, of the epochs judged on the way, fill as it goes."""

    job: Job
    task: Task
    images: Dataset
    init: bytes
    workers: Workers
    report: Report
    watchdog: Watchdog
    values: dict[int, float]

    @property
    def folder(self) -> Storage:
        return _folder(self.job, self.task)

    def outcome(self) -> dict[str, Any] | None:
        """COMPLETE with what it reached, or FAILED with the reason; None where `report` ended it early."""
        trial = self.task.of(self.job.sweep)
        batch_size = self._judged_at_once() or trial.evaluation.batch_size
        trial = trial.model_copy(update={"evaluation": trial.evaluation.model_copy(update={"batch_size": batch_size})})
        try:
            found = self._train_and_judge(trial)
        except FAULTS as e:
            _log.exception("this attempt failed")
            again = memory.ran_out(e) and not self._judged_at_once() and batch_size > 1
            if again:
                half = batch_size // 2
                _log.warning("out of memory: going on with %d images judged at a time, not %d", half, batch_size)
                self.folder.write(_JUDGED_AT_ONCE, str(half).encode())
            if self.workers.count > 1 and not isinstance(e, Diverged):
                raise
            if not again:
                return {"state": "FAILED", "error": f"{type(e).__name__}: {e}"}
        else:
            return None if found is None else {"state": "COMPLETE", **found}
        memory.forget()
        return self.outcome()

    def _judged_at_once(self) -> int | None:
        """How many images an earlier attempt, which ran out of memory, left this one to judge at a time."""
        try:
            return int(self.folder.read(_JUDGED_AT_ONCE))
        except (FileNotFoundError, ValueError):
            return None

    def _train_and_judge(self, trial: TrialBase) -> dict[str, Any] | None:
        """What it reached: `value` and `metrics`; None where `report` ended it early."""
        model, reference = starting(self.init), starting(self.init)
        self.watchdog.watch(model, reference)
        fitted = self._fine_tune(trial, model, reference)
        if not fitted.finished:
            return None
        if fitted.averaged is not None:
            model.load_state_dict(fitted.averaged)
        weights = "live" if fitted.averaged is None else "averaged"
        verdicts = judge(trial, model, reference, self.images.val, self.workers)
        judged = rows(trial, self.job.subject(self.task, weights), "val", self.images.val, verdicts)
        found = {"value": reached.value(judged), "metrics": reached.metrics(judged)}
        _log.info("judged %d images by %d attacks: %.4f", len(self.images.val), len(verdicts) - 1, found["value"])
        if self.workers.rank == 0:
            self.job.store.write_results(self.task.key, f"val-{weights}", judged)
            self.folder.write("model.safetensors", io.dumps(model))
        return found

    def _fine_tune(self, trial: TrialBase, model: nn.Module, reference: nn.Module) -> loop.Fitted:
        """fit() with the trial's settings, its checkpoints and its epochs' rows in the store."""
        method, train = trial.compose(), self.images.train.to(device())
        return loop.fit(
            model,
            train,
            training_attacks(trial, reference),
            method,
            recipe(trial),
            importance=methods.importance(trial.importance, trial.families()),
            seed=trial.seed,
            prior=self.job.priors.of(trial, model, reference, train) if method.sampler.needs_prior else None,
            files=self.folder,
            report=partial(self._epoch_ended, trial.recipe().epochs),
            look=self._watch(trial, reference) if trial.evaluation.every else None,
            workers=self.workers,
        )

    def _epoch_ended(self, last_epoch: int, epoch: int, history: list[dict[str, Any]]) -> bool:
        if self.workers.rank == 0:
            self.job.store.write_epochs(self.task.key, [row | {"number": self.task.number} for row in history])
        last = history[-1]
        shown = ", ".join(f"{name} {last[name]:.4g}" for name in ("train_loss", "train_accuracy", "lr", "seconds"))
        _log.info("epoch %d of %d: %s", epoch, last_epoch, shown)
        return self.report({"epoch": epoch, "train_accuracy": last["train_accuracy"]})

    def _watch(self, trial: TrialBase, reference: nn.Module) -> watch.Watch:
        """What judges the validation images on the way, and leaves the values there."""
        shown = copy.deepcopy(reference)

        def judged(state: State, weights: str, epoch: int) -> list[dict[str, Any]]:
            shown.load_state_dict(state)
            verdicts = judge(trial, shown, reference, self.images.val, self.workers)
            about = replace(self.job.subject(self.task, weights), epoch=epoch)
            return rows(trial, about, "val", self.images.val, verdicts)

        every, last = trial.evaluation.every, trial.recipe().epochs
        store, key = self.job.store, self.task.key
        return watch.Watch(store, key, every, last, self.workers, device(), judged, self.values)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def starting(weights: bytes) -> nn.Module:
    """The model of these weights, on this worker's device."""
    return placed(io.loads(weights))


def placed(model: nn.Module) -> nn.Module:
    """The model on this worker's device: channels_last on a GPU; not on CPUs, where torch 2.13's convolutions in that
    layout corrupt memory with more than one thread."""
    if not torch.cuda.is_available():
        return model
    return model.cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _folder(job: Job, task: Task) -> Storage:
    return job.store.folder.child(f"checkpoints/{task.key}")


def _stored(job: Job, task: Task) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(_folder(job, task).read("outcome.json"))
        return found
    except (FileNotFoundError, ValueError):
        return None


def _attempts(job: Job, task: Task, workers: Workers) -> int:
    """How often this work was begun, this time included; kept in its folder."""
    folder = _folder(job, task)
    try:
        attempts = int(folder.read("attempts")) + 1
    except (FileNotFoundError, ValueError):
        attempts = 1
    if workers.rank == 0:
        folder.write("attempts", str(attempts).encode())
    return attempts


def judge(
    trial: TrialBase,
    model: nn.Module,
    reference: nn.Module,
    images: ImageSet,
    workers: Workers,
    keep_worst: bool = False,
) -> list[Verdict]:
    """The verdicts of every attack of the trial, each worker judging its share of the images. `keep_worst`, by one
    worker: each with the images that it broke worst."""
    mine = images.subset(torch.arange(len(images))[workers.share(len(images))]).to(device())
    settings = trial.evaluation
    own = {name: trial.attack(name, reference) for name in settings.resolved().names(trial.attacks)}
    how: dict[str, Any] = {"protocol": settings.resolved(), "seed": trial.seed, "batch_size": settings.batch_size}
    verdicts = evaluate(model, mine, own, **how, keep_worst=keep_worst)
    # A worker whose share has nothing left to attack sees no stages: several workers would wait for one another.
    shared = (verdict for verdict in verdicts if workers.count == 1 or not verdict.conditional)
    return [_of_all(verdict, len(images), workers) for verdict in shared]


def _of_all(verdict: Verdict, n: int, workers: Workers) -> Verdict:
    if workers.count == 1:
        return verdict
    assert verdict.mean_loss is not None, "stages were left out"
    assert verdict.predicted is not None, "stages were left out"

    def whole(mine: float) -> Tensor:
        """A number of each worker's share, for each image."""
        return workers.whole(torch.full_like(verdict.robust, mine, dtype=torch.float).to(device()), n)

    robust = workers.whole(verdict.robust.float().to(device()), n).cpu() > 0
    predicted = workers.whole(verdict.predicted.to(device()), n).cpu()
    flags = tuple(flag for flag in FLAGS if bool(whole(flag in verdict.flags).any()))
    mean_loss = float(whole(verdict.mean_loss).mean())
    return replace(verdict, robust=robust, predicted=predicted, mean_loss=mean_loss, flags=flags)
