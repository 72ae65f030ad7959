"""What a trial trains with: its attacks, its recipe and, from phase I, its prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from torch import nn

import attacks
from sweep.spec import TrialBase, digest
from sweep.storage import Storage
from trainers import sources, tradeoff
from trainers.data import ImageSet
from trainers.recipe import Recipe

R = TypeVar("R", bound=Recipe)


def training_attacks(trial: TrialBase, reference: nn.Module) -> dict[str, attacks.Attack]:
    found = {name: trial.attack(name, reference) for name in trial.trained()}
    steps = trial.attack_steps
    return found if steps is None else {name: attack.with_steps(steps) for name, attack in found.items()}


def augmented(recipe: R, dataset: str) -> R:
    """The recipe with what it leaves open of the augmentation as the data set has it."""
    source = sources.source(dataset)
    stated = {"flip": recipe.flip, "crop_padding": recipe.crop_padding}
    return replace(recipe, **{name: getattr(source, name) for name, value in stated.items() if value is None})


def recipe(trial: TrialBase) -> Recipe:
    return augmented(trial.recipe(), trial.dataset)


@dataclass(frozen=True)
class Priors:
    """Of the trials of a storage that share a starting model and data, both given by their fingerprints: those with
    the same attacks, learning rate and seed share a prior, in the storage's cache."""

    storage: Storage
    init: str
    data: str

    def stored(self, trial: TrialBase, reference: nn.Module) -> tradeoff.Prior | None:
        """What phase I of such a trial left there."""
        return self._read(self._file(trial, training_attacks(trial, reference)))

    def of(self, trial: TrialBase, model: nn.Module, reference: nn.Module, train: ImageSet) -> tradeoff.Prior:
        """From the cache, else measured now, on `model`, and put there."""
        training = training_attacks(trial, reference)
        file = self._file(trial, training)
        found = self._read(file)
        if found is None:
            found = tradeoff.measure(model, train, training, recipe(trial), seed=trial.seed)
            self.storage.child("cache").write(file, found.dumps())
        return found

    def _read(self, file: str) -> tradeoff.Prior | None:
        try:
            return tradeoff.Prior.loads(self.storage.child("cache").read(file))
        except FileNotFoundError:
            return None

    def _file(self, trial: TrialBase, training: Mapping[str, attacks.Attack]) -> str:
        made_of = {
            "init": self.init,
            "data": self.data,
            "attacks": {name: repr(attack) for name, attack in training.items()},
            "features": trial.features,
            "recipe": asdict(replace(recipe(trial), epochs=1, schedule="constant", warm_up=0.0)),
            "seed": trial.seed,
        }
        return f"prior-{digest(made_of)}.safetensors"
