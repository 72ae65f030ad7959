"""Signs that an evaluation says too much: hidden gradients, attacks that have not converged.

Source: Carlini et al. 2019 (arXiv:1902.06705), section 4; Croce and Hein 2020. Each is a flag on the rows concerned.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import Attack
from trainers.evaluate import Protocol, Verdict

SURVIVES, BLACK_BOX, UNCONVERGED = "survives-unbounded", "black-box-stronger", "unconverged"
UNBOUNDED_EPSILON, UNBOUNDED_STEPS, UNBOUNDED_ACCURACY = 0.5, 20, 0.02
BLACK_BOX_SHARE = 0.01
MORE_STEPS, STEPS_LOSS = 4, 0.02


@dataclass(frozen=True)
class Probe:
    """A run that only serves to judge the verdicts of an attack: of the same name and draws, with other settings."""

    attack: str
    num_steps: int
    epsilon: float | None = None

    @property
    def label(self) -> str:
        return f"{self.attack}@{'unbounded' if self.epsilon else f'{MORE_STEPS}x'}"


def probes(attacks: Mapping[str, Attack], protocol: Protocol) -> list[Probe]:
    """Any image can be broken within linf 0.5; and four times the steps should break little more. The second is not
    asked of attacks that query the model only, nor of AutoAttack's, which have many runs within."""
    used = {name: protocol.attack(attack) for name, attack in attacks.items()}
    found = [
        Probe(name, MORE_STEPS * attack.num_steps)
        for name, attack in used.items()
        if attack.draws_per_image and not attack.gradient_free
    ]
    lp = [attack for attack in used.values() if attack.family == "lp"]
    steps = max([UNBOUNDED_STEPS, *(attack.num_steps for attack in lp)])
    return found + ([Probe("linf", steps, UNBOUNDED_EPSILON)] if lp else [])


def doubts(
    verdicts: Iterable[Verdict], attacks: Mapping[str, Attack], probed: Mapping[Probe, Tensor]
) -> dict[str, set[str]]:
    """Attack (or attack/stage) -> flags. `probed` holds the verdicts of probes on the first images."""
    held = {verdict.attack: verdict for verdict in verdicts}
    found: dict[str, set[str]] = {name: set() for name in held}
    for probe, robust in probed.items():
        if probe.epsilon is not None and float(robust.float().mean()) > UNBOUNDED_ACCURACY:
            _mark(found, (name for name, verdict in held.items() if verdict.family == "lp"), SURVIVES)
        if probe.epsilon is None:
            before = held[probe.attack].robust[: len(robust)]
            if float((before.float() - robust.float()).mean()) > STEPS_LOSS:
                found[probe.attack].add(UNCONVERGED)
    for norm in {verdict.norm for verdict in held.values()} - {None}:
        mine = [verdict for verdict in held.values() if verdict.norm == norm]
        if _black_box_share(mine, attacks) > BLACK_BOX_SHARE:
            _mark(found, (verdict.attack for verdict in mine), BLACK_BOX)
    return found


def _mark(found: dict[str, set[str]], names: Iterable[str], flag: str) -> None:
    for name in names:
        found[name].add(flag)


def _black_box_share(verdicts: list[Verdict], attacks: Mapping[str, Attack]) -> float:
    """Of all images, those that queries alone broke and no attack with gradients did, in one norm."""
    made_of_stages = {verdict.attack.partition("/")[0] for verdict in verdicts if verdict.conditional}
    whole = [v for v in verdicts if not v.conditional and v.attack not in made_of_stages]
    white = [v.robust for v in whole if not attacks[v.attack].gradient_free]
    black = [v.robust for v in whole if attacks[v.attack].gradient_free]
    shares = [_survivors(white) & ~_survivors(black)] if white and black else []
    for before, stage in itertools.pairwise(verdicts):
        if stage.conditional and stage.attack.endswith("/square") and before.conditional:
            shares.append(before.robust & ~stage.robust)
    return max((float(share.float().mean()) for share in shares), default=0.0)


def _survivors(verdicts: list[Tensor]) -> Tensor:
    return torch.stack(verdicts).all(0)
