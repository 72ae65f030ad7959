"""MultiRobustBench's competitiveness ratios (Dai et al. 2023, arXiv:2302.10980; multirobustbench@638710c, metrics.py).

For each attack, a model's accuracy divided by that of a model trained on that attack alone: CR-ind-avg is their mean,
CR-ind-worst the least. What differs from theirs: the reference is our own, fine-tuned on that attack in a trade-off
matrix or a sweep, not their ResNet-18 from scratch on CIFAR-10; an attack has one budget, not twenty; and the ratio of
the accuracies without attack, which they count among the others, is left out, since it needs a model that was trained
on no attack. As with them a ratio may exceed 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attacks.errors import InputError
from sweep.schema import TRADEOFF
from sweep.store import Store
from sweep.tables import models as judged
from sweep.tables.models import PRETRAINED, Model

_INDIVIDUAL = "individual"  # sweep.matrix has the word, and Ray with it
_JUDGE = "autoattack-"


@dataclass(frozen=True)
class Reference:
    """`models`: attack -> those trained on it alone."""

    store: Store
    models: Mapping[str, list[Model]]

    @classmethod
    def read(cls, store: Store, split: str) -> Reference:
        """Of a trade-off matrix in individual mode, or of a sweep with methods that train on one attack."""
        document = store.document()
        trials = store.trials().to_pylist()
        found = judged.read(store, split, trials)
        if not found:
            raise judged.nothing_on(store, split, trials)
        if document.get("kind") == TRADEOFF:
            if document.get("method") != _INDIVIDUAL:
                raise InputError(
                    f"expected a reference in individual mode, {store.sweep_id} is {document.get('method')}"
                )
            alone = [(model.method, model) for model in found if model.method != PRETRAINED]
        else:
            alone = list(_trained_alone(document.get("spec"), trials, found))
        by_attack: dict[str, list[Model]] = {}
        for attack, model in alone:
            by_attack.setdefault(attack, []).append(model)
        if not by_attack:
            raise InputError(f"expected a reference with models trained on one attack each, {store.sweep_id} has none")
        return cls(store, by_attack)

    def accuracies(self, attacks: Iterable[str]) -> dict[str, float]:
        """Attack -> the accuracy under it of the model trained on it, of the best of several; without the attacks on
        which none was trained, or where that model holds on no image at all."""
        found = {}
        for attack in attacks:
            held = [model.robust(attack).mean() for model in self.of(attack) if model.met([attack])]
            if held and max(held) > 0:
                found[attack] = float(max(held))
        return found

    def of(self, attack: str) -> list[Model]:
        """Trained on the attack; AutoAttack of a norm judges what was trained on an attack of that norm."""
        if attack in self.models or not attack.startswith(_JUDGE):
            return self.models.get(attack, [])
        norm = attack.removeprefix(_JUDGE)
        return [model for name in (norm, f"pgd-{norm}") for model in self.models.get(name, [])]


def _trained_alone(spec: object, ended: list[dict[str, object]], found: list[Model]) -> Iterable[tuple[str, Model]]:
    from sweep import alternatives

    sweep = alternatives.reload(spec)
    params = {row["number"]: json.loads(str(row["params"])) for row in ended}
    for model in found:
        if model.number in params:
            trained_on = sweep.configure(params[model.number]).trained()
            if len(trained_on) == 1:
                yield trained_on[0], model
