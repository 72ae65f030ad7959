"""Phase I of CAS: what a model withstands before it is fine-tuned, and what training on one attack does to the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from attacks import Attack
from attacks.errors import InputError
from trainers.averaging.ema import snapshot
from trainers.data import ImageSet
from trainers.evaluate import correct_by_attack
from trainers.inner.single import Single
from trainers.objectives.ce import CrossEntropy
from trainers.recipe import Recipe
from trainers.step import Step
from trainers.weightings.none import Equal
from trainers.workers import Workers

UNMET = 2.0
"""loss[i][j] of a batch that attack j never met (cas-three-phase, Sec. 4.2)."""


@dataclass(frozen=True)
class Prior:
    """accuracy (m,): on the batches that each attack met (Eq. 2); loss (n, m) per training image (Eq. 3), 2.0 where the
    attack did not meet it; tradeoff (m, m): TR[j, k], the change of robust accuracy against k by training on j (Eq. 4),
    on `probe` held-out training images; `seconds` it took."""

    attacks: tuple[str, ...]
    accuracy: Tensor
    loss: Tensor
    tradeoff: Tensor
    probe: int
    seconds: float

    def dumps(self) -> bytes:
        tensors = {"accuracy": self.accuracy, "loss": self.loss, "tradeoff": self.tradeoff}
        facts = {"attacks": ",".join(self.attacks), "probe": str(self.probe), "seconds": str(self.seconds)}
        return save(tensors, facts)

    @classmethod
    def loads(cls, data: bytes) -> Prior:
        try:
            tensors, facts = load(data), _metadata(data)
            names, m = tuple(facts["attacks"].split(",")), len(facts["attacks"].split(","))
            accuracy, loss, tradeoff = (tensors[name] for name in ("accuracy", "loss", "tradeoff"))
            if (accuracy.shape, loss.shape[1:], tradeoff.shape) != ((m,), (m,), (m, m)):
                raise ValueError(f"tensors of other shapes than {m} attacks give")
            return cls(names, accuracy, loss, tradeoff, int(facts["probe"]), float(facts["seconds"]))
        except (SafetensorError, KeyError, ValueError) as e:
            reason = " ".join(str(e).split())
            raise InputError(f"expected a prior (safetensors, as trainers.tradeoff writes it), got: {reason}") from e


def measure(
    model: nn.Module,
    train: ImageSet,
    attacks: Mapping[str, Attack],
    recipe: Recipe,
    *,
    seed: int,
    probe: int | None = None,
) -> Prior:
    """One epoch of phase I (Alg. 1, lines 1-9); the model gets its weights back afterwards.

    For each attack j in turn: robust accuracy against all m attacks on the probe, one SGD step at `recipe.lr` on each
    batch i with i = j mod m, robust accuracy again; the evaluation after j serves as the one before j + 1. Batches are
    at most `recipe.batch_size`, smaller where there would be fewer than m. Cost: one epoch, and (m + 1) * m attacks on
    the probe: n / (m (m + 1)) images, at least 32 and at most half of all, unless `probe` says how many. Raises
    Diverged when `recipe.lr` is too much for the model.
    """
    start = perf_counter()
    names, m = tuple(attacks), len(attacks)
    expect_enough(len(train), m)
    order = torch.from_numpy(np.random.default_rng([seed, 0]).permutation(len(train)))
    size = min(len(train) // 2, probe or max(32, len(train) // (m * (m + 1))))
    held_out, rest = train.subset(order[:size]), order[size:]
    batches = np.array_split(rest.numpy(), max(m, -(-len(rest) // recipe.batch_size)))
    optimizer = recipe.optimizer(model.parameters())
    parts = (Single(), CrossEntropy(), Equal())
    step = Step(model, model, optimizer, *parts, train, recipe, seed, Workers())
    loss = torch.full((len(train), m), UNMET)
    accuracy, tradeoff = torch.zeros(m), torch.zeros(m, m)
    with _restored(model):
        before = _accuracies(model, held_out, attacks, seed)
        for j, name in enumerate(names):
            accuracy[j] = _train_on(step, attacks[name], batches[j::m], j, loss)
            after = _accuracies(model, held_out, attacks, seed)
            tradeoff[j], before = after - before, after
    return Prior(names, accuracy, loss, tradeoff, size, perf_counter() - start)


def _train_on(step: Step, attack: Attack, batches: Sequence[Any], j: int, loss: Tensor) -> Tensor:
    """One update on each batch; fills column j of `loss` (n, m) and returns the accuracy over all of them."""
    correct = []
    for i, index in enumerate(batches):
        batch = step.batch(torch.from_numpy(index), 0, i)
        (seen,) = step(batch, [attack])
        loss[batch.index, j] = seen.ce
        correct.append(seen.correct.float())
    return torch.cat(correct).mean()


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Afterwards the model has the weights, buffers and modes it had, and no gradients."""
    weights, modes = snapshot(model), [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.load_state_dict(weights)
        model.zero_grad(set_to_none=True)
        for module, training in modes:
            module.training = training


def expect_enough(n: int, m: int) -> None:
    """Refuses fewer than four training images an attack."""
    if n < 4 * m:
        raise InputError(f"expected at least {4 * m} training images for phase I with {m} attacks, got {n}")


def _accuracies(model: nn.Module, images: ImageSet, attacks: Mapping[str, Attack], seed: int) -> Tensor:
    return correct_by_attack(model, images, attacks, seed=seed).float().mean(0)


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    facts: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return facts
