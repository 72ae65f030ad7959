"""The gate on cost: kernels counted exactly, no matter how busy the machine is (views are free and not counted)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import attacks
from attacks.base import ATTACKS
from trainers.speed import Kernels, kernels

OWN = [name for name in attacks.names() if ATTACKS.get(name).draws_per_image]
GATED = [name for name in OWN if name not in {"mde", "spsa", "ppgd"}]
"""Not the ensembles, which wait for the device between their parts; SPSA's chunks depend on the batch; ppgd's network
of features is counted in tests/attacks/test_ppgd.py."""
PER_STEP, SETUP = 60, 150
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::item", "aten::is_nonzero", "aten::masked_select"}


WEIGHTS = torch.randn(3 * 32 * 32, 10, generator=torch.Generator().manual_seed(0))


def network(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHTS


def network_step() -> int:
    x = torch.rand(4, 3, 32, 32).requires_grad_()
    with Kernels() as counted:
        loss = F.cross_entropy(network(x), torch.zeros(4, dtype=torch.int64), reduction="none")
        torch.autograd.grad(loss.sum(), x)
    return counted.seen.total()


def kernels_of(name: str, num_steps: int, batch: int) -> Counter[str]:
    attack = dataclasses.replace(attacks.get(name), num_restarts=1).with_steps(num_steps)
    x, y = torch.rand(batch, 3, 32, 32), torch.zeros(batch, dtype=torch.int64)
    return kernels(lambda: attack.run(network, x, y, seeds=torch.arange(batch)))


@pytest.mark.parametrize("name", GATED)
def test_kernels(name: str) -> None:
    few, many = kernels_of(name, 10, 4), kernels_of(name, 20, 4)
    step = (many.total() - few.total()) / 10
    assert step <= network_step() + PER_STEP, many - few
    assert few.total() - 10 * step <= SETUP, few
    assert kernels_of(name, 10, 9) == few, "the number of kernels depends on the batch"
    assert not WAITS & set(many), "a step waits for the device"


@pytest.mark.parametrize("name", GATED)
def test_forwards_and_backwards(name: str) -> None:
    """One backward a step, with respect to the input only; APGD looks once more, without a backward."""
    calls = {"forward": 0, "backward": 0}

    class Network(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            calls["forward"] += 1
            return network(x)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
            calls["backward"] += 1
            return (grad @ WEIGHTS.T).reshape(-1, 3, 32, 32)

    x, y = torch.rand(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    dataclasses.replace(attacks.get(name), num_restarts=1).with_steps(6).run(Network.apply, x, y, seeds=y)
    assert calls["backward"] == 6
    assert calls["forward"] == (7 if name in {"linf", "l2", "l1"} else 6)
