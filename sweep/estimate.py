"""What a sweep will take, from a few batches timed on a worker of the cluster that would run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from sweep import priors, trial
from sweep.alternatives import GRID, Sweep
from sweep.engine import Resources
from sweep.settings import METHOD
from sweep.spec import TrialBase
from sweep.starting import fresh_model
from trainers import methods
from trainers.data import Dataset

_CPU_IMAGES = 16
"""Images of a timed batch on a CPU, where larger ones cost the same for each image."""


@dataclass(frozen=True)
class Cost:
    """Seconds for each image: of a training forward and backward, and of each attack as in training and in judging."""

    step: float
    trained: dict[str, float]
    judged: dict[str, float]


def measure(sweep: Sweep, images: Dataset) -> Cost:
    """Times a training step and every attack that trains or judges, on a new model; each once, after a run that is not
    counted."""
    base, device = sweep.trial, trial.device()
    model = trial.placed(fresh_model(base, images))
    size = min(len(images.train), base.recipe().batch_size if device.type == "cuda" else _CPU_IMAGES)
    mine = images.train.subset(torch.arange(size)).to(device)
    x, y = mine.floats(torch.arange(size)), mine.labels

    def step() -> None:
        model.train()
        cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]

    def seconds(work: Callable[[], Any]) -> float:
        work()
        _wait(device)
        start = perf_counter()
        work()
        _wait(device)
        return (perf_counter() - start) / size

    def each(attacks: Mapping[str, Any]) -> dict[str, float]:
        model.eval()
        return {name: seconds(partial(attack.run, model, x, y, seeds=mine.ids)) for name, attack in attacks.items()}

    trained = [priors.training_attacks(one.trial, model) for one in sweep.alternatives.values()]
    protocol = base.evaluation.resolved()
    judged = {name: protocol.attack(base.attack(name, model)) for name in protocol.names(base.attacks)}
    return Cost(seconds(step), each({name: a for attacks in trained for name, a in attacks.items()}), each(judged))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def trials(sweep: Sweep) -> list[dict[str, Any]]:
    """A row a configuration that is certain: a grid's cells, or the defaults with which a search begins."""
    if sweep.searcher == GRID:
        known = [sweep.cell(number) for number in range(sweep.trials)]
    else:
        known = [sweep.named(name, sweep.alternatives[name].defaults()) for name in sweep.reached()]
    return [
        {"number": number, "method": sweep.name(params), "seeds": ", ".join(map(str, sweep.seeds))}
        | {address: value for address, value in params.items() if address != METHOD}
        for number, params in enumerate(known)
    ]


def costs(
    sweep: Sweep, images: Dataset, cost: Cost, granted: Resources, price: float | None = None
) -> list[dict[str, Any]]:
    """A row an alternative with its runs and what one of them takes, in seconds, and one for all: hours on the clock
    with as many runs at a time as `granted`, hours of GPUs (of CPUs where there are none), and money at `price` an
    hour of one. How many a search will draw of each alternative nobody knows: they count alike. Left out are
    pre-training, phase I, judging on the way and the probes of MDE; that an image leaves an attack once it is broken,
    and that a run is stopped early, makes it cheaper."""
    judging, found = sum(cost.judged.values()), []
    runs, seconds = 0.0, 0.0
    for name, count in _runs(sweep).items():
        training = _training(sweep.alternatives[name].trial, len(images.train), cost)
        found.append({"method": name, "runs": count, "training": training, "judging": judging * len(images.val)})
        runs, seconds = runs + count, seconds + count * (training + judging * len(images.val))
    best = max(1, sweep.confirm) * (len(sweep.seeds) + len(sweep.unseen(sweep.seeds)))
    tested = 1 + (runs if sweep.test == "all" else best)
    seconds += tested * judging * len(images.test)
    workers = sweep.trial.workers
    hours = seconds / 3600 * workers * (granted.gpus or granted.cpus)
    whole: dict[str, Any] = {"method": "all", "runs": runs}
    whole |= {"hours": seconds / 3600 / min(granted.max_concurrent, runs)}
    whole |= {"GPU-hours" if granted.gpus else "CPU-hours": hours} | ({} if price is None else {"money": price * hours})
    return [*found, whole]


def _runs(sweep: Sweep) -> dict[str, float]:
    """Alternative -> its runs, one a seed; those that confirm the best count alike for all."""
    each = len(sweep.seeds) + min(1, sweep.confirm / sweep.trials) * len(sweep.unseen(sweep.seeds))
    if sweep.searcher == GRID:
        names = [sweep.name(sweep.cell(number)) for number in range(sweep.trials)]
        return {name: names.count(name) * each for name in dict.fromkeys(names)}
    reached = sweep.reached()
    return {name: sweep.trials * each / len(reached) for name in reached}


def _training(one: TrialBase, images: int, cost: Cost) -> float:
    """Seconds of a run's training: the attacks that a batch meets, and a forward and backward for each view."""
    method, weights = one.compose(), methods.importance(one.importance, one.families())
    together = one.part("sampler")["name"] == "every"
    drawn = sum(cost.trained[name] * weight for name, weight in weights.items()) / sum(weights.values())
    attack = sum(cost.trained[name] for name in one.trained()) if together else drawn
    inner = one.part("inner")
    if inner["name"] == "natural":
        attack = 0.0
    if inner.get("adaptive", "none") != "none":
        attack *= 2
    views = len(one.trained()) if together and inner["name"] == "each" else 1
    views += bool(method.objective.clean or method.weighting.clean)
    return one.recipe().epochs * images * (attack + views * cost.step) / one.workers
