"""What every method of the catalogue costs: exact forwards and backwards of a training image; the sampler's time."""

from __future__ import annotations

from dataclasses import replace
from time import thread_time
from typing import Any

import numpy as np
import pytest
from method_toys import BUDGETS, NAMES, RECIPE, train, uneven_prior
from trainer_toys import batch_of, ones, seen, toy_attacks

from trainers import methods
from trainers.samplers.cas import Cas

N, K = 3, 3
"""Steps of each attack, and attacks: PGD ones, whose passes are their steps, but for `e-at` and `ramp`, whose two APGDs
look once more, without a gradient."""

ONE = (N, N, 1, 1)
PASSES: dict[str, tuple[int, int, int, int]] = {
    "cas": ONE,
    "cas-bandit": (N, N, 2, 2),  # the clean images train too
    "sat": ONE,
    "order": ONE,
    "e-at": (N + 1, N, 1, 1),
    "e-at-all": ONE,
    "avg": (K * N, K * N, K, K),
    "max": (K * (N + 1), K * N, 1, 1),  # the k results are compared
    "msd": ((K + 1) * N, N, 1, 1),  # a gradient and k candidates a step
    "ramp": (2 * (N + 1), 2 * N, 2, 2),
    "natural": (0, 0, 1, 1),
    "at": ONE,
    "trades": (1 + N, N, 2, 2),  # the attack is told the clean prediction
    "mart": (N, N, 2, 2),
    "gairat": ONE,
    "mail-at": ONE,
    "mail-trades": (1 + N, N, 2, 2),
    "vir-at": (N, N, 2, 1),  # it weighs by the clean prediction, and does not train it
    "vir-trades": (1 + N, N, 2, 2),
}
"""Forwards and backwards of an image to attack it and to train on it."""
PASSES |= {f"{name}-scratch": PASSES[name] for name in ("avg", "max", "msd")}
PASSES |= {"cas+none": PASSES["cas"], "cas+ema": PASSES["cas"], "sat+mde": PASSES["sat"]}
PASSES["ramp+ramp"] = (*PASSES["ramp"][:2], 2 + 1, 2 + 1)  # and an epoch on clean images
for name in BUDGETS:  # k attacks and a gradient of each, before all of it
    f, b, training_f, training_b = PASSES[name[:3]]
    PASSES[name] = (K * (N + 1) + f, K * (N + 1) + b, training_f, training_b)


@pytest.mark.parametrize("name", NAMES)
def test_passes_for_each_training_image(name: str) -> None:
    of = toy_attacks(*(methods.entry(name).train or ("pgd-linf", "pgd-l2", "pgd-l1")), steps=N)
    (row,) = train(name, replace(RECIPE, epochs=1), of=of).history
    f, b, training_f, training_b = PASSES[name]
    assert (row["forwards"], row["backwards"]) == (f + training_f, b + training_b)


def test_the_costs_compare_as_the_papers_say() -> None:
    total = {name: sum(passes) for name, passes in PASSES.items()}
    attack = {name: sum(passes[:2]) for name, passes in PASSES.items()}
    assert attack["cas"] == attack["cas-bandit"] == attack["order"] == attack["sat"]
    assert total["cas"] == total["sat"] == total["cas-bandit"] - 2
    assert total["avg"] == K * total["sat"]
    assert total["msd"] < total["max"]
    for name in BUDGETS:
        assert attack[name] > 2 * attack[name[:3]]


def test_a_batch_of_cas_costs_at_most_a_millisecond_at_21_attacks_and_cifars_50_000_images() -> None:
    """Processor time of this thread, the best of five rounds, as for the other samplers in test_samplers_more.py."""
    attacks, rng, sampler = [f"a{j}" for j in range(21)], np.random.default_rng(0), Cas()
    of: Any = dict.fromkeys(attacks)
    images: Any = range(50_000)
    sampler.start(attacks, ones(of), uneven_prior(images, of))
    batch = batch_of(rng.permutation(50_000)[:128].tolist())
    outcome = {attack: seen(attack, rng.random(128).tolist(), [1] * 128) for attack in attacks}

    def round_of(batches: int) -> float:
        start = thread_time()
        for _ in range(batches):
            sampler.probabilities(batch)
            sampler.observe(batch, [outcome[a] for a in sampler.choose(batch, rng)])
        return (thread_time() - start) / batches

    assert min(round_of(20) for _ in range(5)) < 1e-3
