"""How long attacks take beside the bare network: paired ratios, since the seconds of a busy machine mean little."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from time import perf_counter, process_time
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import attacks
from attacks.losses import cross_entropy
from trainers import models

AGAIN = "network again"


class Kernels(TorchDispatchMode):
    """Counts by name what torch dispatches while it is on; views are free and not counted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func._schema.returns
        if not any(result.alias_info is not None and not result.alias_info.is_write for result in results):
            self.seen[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


def kernels(turn: Callable[[], Any]) -> Counter[str]:
    """Those of one turn, after another that makes the constants."""
    turn()
    counted = Kernels()
    with counted:
        turn()
    return counted.seen


def bench_attacks(
    names: Iterable[str], *, width: int, batch_size: int, rounds: int, steps: int, dataset: str = "cifar10"
) -> list[dict[str, Any]]:
    """A row an attack: `ratio`, its time over that of as many bare network steps (forward and input-backward of a
    pre-activation ResNet-18 in eval mode) in the same round, the median over rounds with its quartiles; images/s with
    the attack's own number of steps; `step_ms`, the time of one step of the batch; `kernels`, what a step dispatches
    beyond the network's, and `setup`, what else a run does. Random images, weights and order. The row "network again"
    is the noise.

    On a GPU wall time around a synchronisation, elsewhere the CPU time of one thread.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = models.create(num_classes=10, width=width).to(device).eval()
    turns = {"network": _bare(model, batch_size, steps, device), AGAIN: _bare(model, batch_size, steps, device)}
    made = {name: attacks.get(name, dataset).bind(model) for name in names}
    for name, attack in made.items():
        turns[name] = _attack(model, attack.with_steps(steps), batch_size, device)
    times = _timed(turns, rounds, device)
    rows = []
    for name in [AGAIN, *made]:
        ratios = [mine / bare for mine, bare in zip(times[name], times["network"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        step = statistics.median(times[name]) / steps
        own = made[name].num_steps * made[name].num_restarts if name in made else 1
        row = {"attack": name, "ratio": median, "ratio_q1": low, "ratio_q3": high, "num_steps": own}
        row |= {"images_per_s": batch_size / (step * own), "step_ms": 1000 * step}
        rows.append(row | (_counted(model, made[name], device) if name in made else {"kernels": 0, "setup": 0}))
    return rows


def _counted(model: nn.Module, attack: attacks.Attack, device: torch.device) -> dict[str, float]:
    """From runs of 4 and of 8 steps on two images."""
    few, many = (kernels(_attack(model, attack.with_steps(n), 2, device)).total() for n in (4, 8))
    bare = kernels(_bare(model, 2, 8, device)).total() / 8
    step = (many - few) / 4
    return {"kernels": step - bare, "setup": few - 4 * step}


def _bare(model: nn.Module, batch_size: int, steps: int, device: torch.device) -> Callable[[], Any]:
    x, y = _batch(batch_size, device)

    def turn() -> None:
        for _ in range(steps):
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)

    return turn


def _attack(model: nn.Module, attack: attacks.Attack, batch_size: int, device: torch.device) -> Callable[[], Any]:
    x, y = _batch(batch_size, device)
    return lambda: attack(model, x, y, seeds=y)


def _batch(batch_size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch_size, 3, 32, 32, generator=generator)
    return x.to(device), torch.randint(10, (batch_size,), generator=generator).to(device)


def _timed(turns: dict[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every turn in every round; the first round warms up and is left out."""
    threads, order = torch.get_num_threads(), random.Random(0)
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {name: [] for name in turns}
    try:
        for _ in range(rounds + 1):
            for name in order.sample(list(turns), len(turns)):
                times[name].append(_seconds(turns[name], device))
    finally:
        torch.set_num_threads(threads)
    return {name: seconds[1:] for name, seconds in times.items()}


def _seconds(turn: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        start = process_time()
        turn()
        return process_time() - start
    torch.cuda.synchronize()
    start = perf_counter()
    turn()
    torch.cuda.synchronize()
    return perf_counter() - start
