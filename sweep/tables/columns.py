"""The accuracies that a table has of each model: what an image adds to each, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from attacks.errors import InputError, unknown
from sweep.intervals import Floats
from sweep.store import Store
from sweep.tables.averages import AVERAGE, USUAL
from sweep.tables.averages import columns as averaged_columns
from sweep.tables.averages import formula as formula_of
from sweep.tables.models import AVERAGED, CLEAN, Model, attack_names, last
from sweep.tables.ratios import Reference

WORST_CASE = "union of all"
"""Robust against every attack at once: the worst case image by image, the exact union of all attacks."""
WORST_ATTACK = "worst attack"
"""The lowest of the accuracies under one attack."""
CR_AVERAGE, CR_WORST = "cr_ind_avg", "cr_ind_worst"


def scores(store: Store, split: str, column: str = AVERAGE) -> dict[str, Floats]:
    """Trial -> what each image adds to one of its columns, (1, images): at its last epoch, with its averaged weights
    where it has some. A trial that has no such column on the split is left out."""
    held = sorted(last(store, split).items(), key=lambda item: item[0][1] == AVERAGED)
    models = ((trial, Model(store.sweep_id, None, "", weights, [run])) for (trial, weights), run in held)
    found = {trial: Columns.of([model], [], USUAL, None).scores(model) for trial, model in models}
    return {trial: each[column] for trial, each in found.items() if column in each}


@dataclass(frozen=True)
class Columns:
    """`names`: clean and each attack; `attacks`: those that enter the worst cases; `unions`: column -> its attacks;
    `reference`: attack -> the accuracy under it of a model trained on it alone."""

    names: tuple[str, ...]
    attacks: tuple[str, ...]
    unions: Mapping[str, Sequence[str]]
    formula: str
    reference: Mapping[str, float]

    @classmethod
    def of(
        cls,
        models: Sequence[Model],
        unions: Sequence[Sequence[str]],
        average: str | None,
        reference: Reference | None,
    ) -> Columns:
        names = attack_names(models)
        for name in (name for union in unions for name in union):
            if name not in names:
                raise unknown("attack", name, names)
        rows = {name: row for model in models for run in model.runs for name, row in run.items()}
        attacks = tuple(name for name in names if name != CLEAN and not rows[name]["conditional"])
        formula = formula_of(average, next(iter(rows.values()))["dataset"])
        named = {f"union({','.join(union)})": tuple(union) for union in unions}
        return cls(tuple(names), attacks, named, formula, reference.accuracies(attacks) if reference else {})

    def told(self, reference: str) -> list[str]:
        """What the ratios are, and which attacks they leave out."""
        left = [name for name in self.attacks if name not in self.reference]
        found = [
            f"{CR_AVERAGE}, {CR_WORST}: MultiRobustBench's ratios, here the mean and the least, over "
            f"{len(self.reference)} attacks, of the accuracy divided by that of the model of {reference} that was "
            "trained on that attack alone."
        ]
        return found + ([f"Not in the ratios, without a reference above 0: {', '.join(left)}."] if left else [])

    @property
    def before(self) -> tuple[str, ...]:
        """Those that stand before the average, in order."""
        return (*self.names, *averaged_columns(self.formula)[:-1])

    @property
    def after(self) -> tuple[str, ...]:
        ratios = (CR_AVERAGE, CR_WORST) if self.reference else ()
        return (*self.unions, WORST_CASE, WORST_ATTACK, *ratios)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Those of one bit per image."""
        return (*self.names, *self.unions, WORST_CASE)

    def scores(self, model: Model) -> dict[str, Floats]:
        """Column -> what each image adds to it, (seeds, images); without what the model did not meet."""
        found = {name: model.robust(name) for name in self.names if model.met([name])}
        found |= model.averages(self.names, self.formula)
        found |= {column: model.together(union) for column, union in self.unions.items() if model.met(union)}
        with suppress(InputError):  # refusal() says why
            if self.attacks and model.met(self.attacks):
                found[WORST_CASE] = model.together(self.attacks)
        return found

    def refusal(self, model: Model) -> str | None:
        """Why a model that met all attacks has no union of them."""
        try:
            model.expect_union(self.attacks)
        except InputError as e:
            return str(e)
        return None

    def with_worst(self, means: Mapping[str, Floats]) -> dict[str, Floats]:
        """Column -> means of any one shape, and those made of the means under each attack, each mean for itself."""
        made = dict(means)
        if self.attacks and all(name in means for name in self.attacks):
            made[WORST_ATTACK] = np.min([means[name] for name in self.attacks], axis=0)
        if self.reference and all(name in means for name in self.reference):
            ratios = [means[name] / held for name, held in self.reference.items()]
            made |= {CR_AVERAGE: np.mean(ratios, axis=0), CR_WORST: np.min(ratios, axis=0)}
        return made
