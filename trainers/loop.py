"""fit(): the one training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks import Attack
from attacks.errors import InputError
from trainers import checkpoint, companion
from trainers.averaging.ema import snapshot
from trainers.data import ImageSet
from trainers.evaluate import correct_by_attack
from trainers.parts import Gain, Method, Seen, State
from trainers.recipe import Recipe
from trainers.step import PROBE, Diverged, Step
from trainers.tally import Tally
from trainers.tradeoff import Prior
from trainers.workers import Workers

Report = Callable[[int, list[dict[str, Any]]], bool]
"""(epochs done, the records of all of them) -> go on? Called by every worker, which must all get the same answer."""

Look = Callable[[int, nn.Module, State | None], None]
"""(epochs done, the model, its averaged weights): looks at what an epoch left, and changes none of it."""


@dataclass
class Fitted:
    """The trained model, its averaged weights (None where the method keeps none) and one record an epoch. `finished` is
    False when `report` ended the training early."""

    model: nn.Module
    averaged: State | None
    history: list[dict[str, Any]]
    finished: bool


def fit(
    model: nn.Module,
    train: ImageSet,
    attacks: Mapping[str, Attack],
    method: Method,
    recipe: Recipe,
    *,
    importance: Mapping[str, float],
    seed: int,
    prior: Prior | None = None,
    files: checkpoint.Files | None = None,
    report: Report | None = None,
    look: Look | None = None,
    workers: Workers | None = None,
) -> Fitted:
    """Fine-tunes `model` in place, on the device of `train`. With `files`, saves after every epoch and goes on from the
    newest checkpoint there that verifies; on a CPU the resumed run is equal to an undisturbed one to the last bit.
    `attacks` by name; `importance` gives each its weight, `prior` what phase I measured, if the sampler needs it.
    Every worker calls `look` and `report` after each epoch, once it is saved, and for the one that it goes on from.

    Raises Diverged when a loss or, at an epoch's end, a weight is not finite; InputError for other work's checkpoint.
    """
    run = _Run(model, train, dict(attacks), method, recipe, seed, workers or Workers())
    run.start(dict(importance), prior)
    saved = checkpoint.newest(files) if files is not None else None
    if saved:
        run.load(*saved)
    run.expect_agreement()
    if saved and look:  # it may have ended between saving and looking, or telling
        look(run.epoch, model, method.averaging.weights())
    go_on = report(run.epoch, run.history) if saved and report else True
    while go_on and run.epoch < recipe.epochs:
        run.one_epoch()
        if files is not None and run.workers.rank == 0:
            checkpoint.write(files, run.epoch, *run.save())
        if look:
            look(run.epoch, model, method.averaging.weights())
        go_on = report(run.epoch, run.history) if report else True
    return Fitted(model, method.averaging.weights(), run.history, run.epoch >= recipe.epochs)


def split_batches(n: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """A permutation of n images in batches of at most `batch_size`, whose sizes differ by at most one."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return [torch.from_numpy(part) for part in np.array_split(order, -(-n // batch_size))]


@dataclass
class _Run:
    model: nn.Module
    train: ImageSet
    attacks: dict[str, Attack]
    method: Method
    recipe: Recipe
    seed: int
    workers: Workers
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    probed: Tensor | None = None

    def start(self, importance: Mapping[str, float], prior: Prior | None) -> None:
        self._expect_sense(importance, prior)
        if self.method.objective.random_start:
            self.attacks = {name: _from_random(attack) for name, attack in self.attacks.items()}
        if prior is not None:
            prior = self._of_first(prior)
        self.optimizer = self.recipe.optimizer(self.model.parameters())
        parts = (self.method.inner, self.method.objective, self.method.weighting)
        net = self.workers.wrap(self.model)
        self.step = Step(self.model, net, self.optimizer, *parts, self.train, self.recipe, self.seed, self.workers)
        self.method.sampler.start(list(self.attacks), importance, prior)
        self.method.weighting.start(list(self.attacks.values()), self.recipe.epochs)
        self.method.averaging.start(self.model, len(self._batches(0)), self.recipe.epochs)
        self.tally = Tally(tuple(self.attacks), prior.accuracy if prior else None)

    def _expect_sense(self, importance: Mapping[str, float], prior: Prior | None) -> None:
        if not self.attacks:
            raise InputError("expected at least one attack to train on, got none")
        for name, attack in self.attacks.items():
            if name != attack.name:
                raise InputError(f"expected attacks under their own names, got {attack.name} as {name!r}")
        weights = {name: importance.get(name, math.nan) for name in self.attacks}
        if not all(0 <= weight < math.inf for weight in weights.values()) or not sum(weights.values()):
            raise InputError(f"expected an importance weight >= 0 of every attack, one of them > 0, got {weights}")
        smallest = min(len(index) for index in self._batches(0))
        if smallest < self.workers.count:
            raise InputError(f"expected an image for each of {self.workers.count} workers, got a batch of {smallest}")
        if prior is not None and len(prior.loss) != len(self.train):
            raise InputError(f"expected a prior over {len(self.train)} training images, got one over {len(prior.loss)}")

    def _of_first(self, prior: Prior) -> Prior:
        """The prior of rank 0: where each worker measured its own, a GPU may not have given the same bits."""
        device = self.train.images.device
        shared = (self.workers.from_first(t, device) for t in (prior.accuracy, prior.loss, prior.tradeoff))
        accuracy, loss, tradeoff = shared
        return replace(prior, accuracy=accuracy, loss=loss, tradeoff=tradeoff)

    def expect_agreement(self) -> None:
        """Workers that found different checkpoints would wait for each other for ever."""
        mine = torch.tensor([float(self.epoch)], device=self.train.images.device)
        epochs = self.workers.whole(mine, self.workers.count).tolist()
        if len(set(epochs)) > 1:
            raise RuntimeError(f"the workers go on from different epochs: {epochs}")

    def _batches(self, epoch: int) -> list[Tensor]:
        return split_batches(
            len(self.train), self.recipe.batch_size, self.seed, 0 if self.recipe.fixed_batches else epoch
        )

    def one_epoch(self) -> None:
        start = perf_counter()
        old = snapshot(self.model)
        batches = self._batches(self.epoch)
        rng = np.random.default_rng([self.seed, self.epoch, 1])
        if self.method.averaging.wants_gain == "probe" and self.probed is None:
            self.probed = self._probe()
        self.tally.open()
        for i, index in enumerate(batches):
            self._one_batch(i, index, len(batches), rng)
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise Diverged(f"a weight is not finite at the end of epoch {self.epoch}")
        self.workers.agree_on_buffers(self.model, self.method.averaging.weights())
        gain = self._gain()
        warm_up = self.recipe.is_warm_up(self.epoch)
        feedback = self.method.averaging.after_epoch(
            old, snapshot(self.model), self._companions(old, batches), gain, warm_up
        )
        if feedback is not None:
            self.model.load_state_dict(feedback)
        self.epoch += 1
        self.history.append(self._record(warm_up, gain) | {"seconds": perf_counter() - start})

    def _one_batch(self, i: int, index: Tensor, steps: int, rng: np.random.Generator) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(self.epoch, i, steps)
        batch = self.step.batch(index, self.epoch, i)
        sampler = self.method.sampler
        probabilities, chosen = sampler.probabilities(batch), sampler.choose(batch, rng)
        self.tally.offered(probabilities, chosen)
        seen: list[Seen] = self.step(batch, [self.attacks[name] for name in chosen])
        sampler.observe(batch, seen)
        self.tally.saw(seen)
        self.method.averaging.after_step(self.model)

    def _companions(self, old: State, batches: list[Tensor]) -> dict[str, State]:
        any_attack = next(iter(self.attacks.values()))
        return {
            kind: companion.one_epoch(kind, self.step, old, batches, self.epoch, any_attack)
            for kind in self.method.averaging.companions
        }

    def _gain(self) -> Gain | None:
        if self.method.averaging.wants_gain == "train":
            return self.tally.gain()
        if self.probed is None:
            return None
        before, self.probed = self.probed, self._probe()
        change = (self.probed.double() - before.double()).mean(1)
        return Gain(float(change.mean()), float(change.std() / len(change) ** 0.5))

    def _probe(self) -> Tensor:
        """(images, attacks) bool on a fixed part of the training images, with the same noise at every call."""
        size = probe_size(len(self.train), 20 * len(self.attacks))
        rows = torch.from_numpy(np.random.default_rng([self.seed, PROBE]).permutation(len(self.train))[:size])
        mine = self.train.subset(rows[self.workers.share(size)])
        correct = correct_by_attack(self.model, mine, self.attacks, seed=self.seed)
        return self.workers.whole(correct.float().T.to(self.train.labels.device), size).T.cpu() > 0

    def _record(self, warm_up: bool, gain: Gain | None) -> dict[str, Any]:
        record = self.tally.record() | self.method.averaging.record()
        record |= {"epoch": self.epoch, "phase": "warm-up" if warm_up else "dynamic"}
        record |= {"lr": self.optimizer.param_groups[0]["lr"]}
        record |= {"gain": gain.mean, "gain_stderr": gain.stderr} if gain else {}
        record |= self.step.classes.record()
        return record | self.method.sampler.record() | self.method.inner.record() | self.step.cost()

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        moments = {
            f"{i}.{name}": value
            for i, p in enumerate(self.model.parameters())
            for name, value in self.optimizer.state.get(p, {}).items()
            if value is not None
        }
        groups: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "optimizer": moments,
            "sampler": self.method.sampler.state_dict(),
            "averaging": self.method.averaging.state_dict(),
            "tally": self.tally.state_dict(),
            "probe": {} if self.probed is None else {"correct": self.probed},
        }
        tensors = {f"{group}/{name}": t for group, state in groups.items() for name, t in state.items()}
        return tensors, {"epoch": self.epoch, "seed": self.seed, "history": self.history}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        def group(prefix: str, device: torch.device | str = "cpu") -> State:
            mine = {name: t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
            return {name.removeprefix(f"{prefix}/"): t.to(device) for name, t in mine.items()}

        self._expect_own(tensors, state)
        device = self.train.images.device
        self.model.load_state_dict(group("model"))
        parameters = list(self.model.parameters())
        for place, value in group("optimizer").items():
            i, _, name = place.partition(".")
            self.optimizer.state[parameters[int(i)]][name] = value.to(device) if value.dim() else value
        self.method.sampler.load_state_dict(group("sampler"))
        self.method.averaging.load_state_dict(group("averaging", device))
        self.tally.load_state_dict(group("tally"))
        self.probed = group("probe").get("correct")
        self.epoch, self.history = int(state["epoch"]), list(state["history"])

    def _expect_own(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Refuses a checkpoint that other work left in the same folder, before anything is changed."""
        for name, own in self.save()[0].items():
            found = tensors.get(name)
            if found is None or (name.startswith("model/") and found.shape != own.shape):
                got = "none" if found is None else f"shape {tuple(found.shape)}"
                raise InputError(f"expected a checkpoint of this run, with {name} of {tuple(own.shape)}, got {got}")
        if state["seed"] != self.seed:
            raise InputError(f"expected a checkpoint of this run, with seed {self.seed}, got seed {state['seed']}")


def _from_random(attack: Attack) -> Attack:
    """The attack with a random start, if it can have one."""
    change = {"random_start": True} if hasattr(attack, "random_start") else {}
    return replace(attack, **change)


def probe_size(n: int, parts: int) -> int:
    """How many of n images a probe takes: one part in `parts`, at least 32, at most all."""
    return min(n, max(32, n // parts))
