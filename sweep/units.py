"""The pieces that `evaluate` is done in: one attack on one batch, kept in the evaluation's folder once it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import attacks
from attacks import Attack
from sweep import trial
from sweep.spec import TrialBase
from sweep.storage import Storage
from trainers.data import ImageSet
from trainers.evaluate import Judged, judge_attacked, judge_clean
from trainers.reliability import Probe
from trainers.worst import Broken

CLEAN = "clean"


@dataclass(frozen=True)
class Unit:
    """One attack, or one probe of an attack, on the images from `first` on. `cost`: attack steps times images."""

    name: str
    first: int
    size: int
    cost: int
    probe: Probe | None = None

    @property
    def label(self) -> str:
        return self.probe.label if self.probe else self.name

    def file(self, key: str) -> str:
        return f"units/{key}/{self.label}/{self.first:06d}.safetensors"


def judge_unit(
    folder: Storage,
    key: str,
    base: TrialBase,
    unit: Unit,
    weights: bytes,
    start: bytes,
    images: ImageSet,
    clean: Judged | None,
    keep_worst: bool,
) -> Judged:
    """On a worker: the verdicts of one unit, kept before they are returned. `clean`: those of the same images.
    `keep_worst`: with the images that it broke worst, unless it is a probe."""
    model = trial.starting(weights)
    part = images.subset(torch.arange(unit.first, unit.first + unit.size)).to(trial.device())
    rows = torch.arange(unit.size)
    if clean is None or len(clean.robust) != unit.size:
        clean = judge_clean(model, part, rows)
    judged = clean
    if unit.name != CLEAN:
        attack, how = attack_of(base, unit, trial.starting(start)), base.evaluation.resolved()
        told: dict[str, Any] = {"any_iterate": how.any_iterate, "seed": base.seed}
        told |= {"keep_worst": keep_worst and unit.probe is None}
        judged = judge_attacked(model, part, rows, attack, unit.name, clean, **told)
    folder.write(unit.file(key), _dumps(judged))
    return judged


def attack_of(base: TrialBase, unit: Unit, start: nn.Module | None = None) -> Attack:
    """The attack of a unit; with the starting model, ready to run."""
    if unit.probe is None:
        return base.evaluation.resolved().attack(base.attack(unit.name, start))
    if unit.probe.epsilon is not None:
        return attacks.get(unit.name, base.dataset, unit.probe.epsilon).with_steps(unit.probe.num_steps)
    return base.attack(unit.name, start).with_steps(unit.probe.num_steps)


def kept(folder: Storage, unit: Unit, key: str) -> Judged | None:
    """What an earlier run kept of a unit; None where there is nothing sound of its size."""
    try:
        data = folder.read(unit.file(key))
        held = safetensors.torch.load(data)
        about = json.loads(bytes(held.pop("about").tolist()))
        stages = tuple((name, held[f"stage {i}"].bool()) for i, name in enumerate(about["stages"]))
        each = held["robust"].bool(), held["loss"], held["predicted"].long()
        judged = Judged(*each, frozenset(about["flags"]), about["seconds"], stages, _worst(held, about["worst"]))
    except (FileNotFoundError, SafetensorError, ValueError, KeyError):
        return None
    return judged if len(judged.robust) == unit.size else None


def _worst(held: Mapping[str, Tensor], facts: list[tuple[int, int, int, float]]) -> tuple[Broken, ...]:
    return tuple(Broken(*fact, held[f"clean {i}"], held[f"attacked {i}"]) for i, fact in enumerate(facts))


def _dumps(judged: Judged) -> bytes:
    names = [name for name, _ in judged.stages]
    facts = [(one.image, one.label, one.predicted, one.loss) for one in judged.worst]
    said = {"flags": sorted(judged.flags), "seconds": judged.seconds, "stages": names, "worst": facts}
    about = json.dumps(said).encode()
    held = {"robust": judged.robust.to(torch.uint8), "loss": judged.loss.float().contiguous()}
    held |= {"predicted": judged.predicted.to(torch.int32)}
    for i, one in enumerate(judged.worst):
        held |= {f"clean {i}": one.clean.contiguous(), f"attacked {i}": one.attacked.contiguous()}
    held |= {f"stage {i}": robust.to(torch.uint8) for i, (_, robust) in enumerate(judged.stages)}
    return safetensors.torch.save(held | {"about": torch.tensor(list(about), dtype=torch.uint8)})
