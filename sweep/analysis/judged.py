"""What was stored of models' verdicts, in the form in which two models are compared: what each image adds to each
column of the table."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from attacks.errors import unknown
from sweep.intervals import Draws, Floats, percentiles
from sweep.store import Store
from sweep.tables import models
from sweep.tables.averages import AVERAGE
from sweep.tables.columns import WORST_ATTACK, Columns
from sweep.tables.models import AVERAGED, PRETRAINED, REPLAY, Model

ROUND_OFF = 1e-9
"""Of accuracies: what lies nearer is equal."""
_UNION = re.compile(r"union\((.+)\)")


def of(store: Store, split: str) -> dict[int | None, Model]:
    """Number -> the model that a configuration left, of its averaged weights where it has some, and None -> the
    starting model. Without controls. InputError where nothing was judged on the split."""
    trials = store.trials().to_pylist()
    read = models.read(store, split, trials)
    if not read:
        raise models.nothing_on(store, split, trials)
    held = sorted(read, key=lambda model: model.weights == AVERAGED)
    return {m.number: m for m in held if m.method == PRETRAINED or (m.number is not None and REPLAY not in m.method)}


def finished(store: Store, split: str) -> dict[int, Model]:
    """The models of the configurations that ended well, the best value first, and were judged with every seed."""
    found = of(store, split)
    numbers = {one["number"]: len(one["runs"]) for one in store.configurations()}
    return {
        number: found[number] for number, runs in numbers.items() if number in found and len(found[number].runs) == runs
    }


def beyond_noise(differences: Floats) -> bool:
    """Whether the 95 % interval of resampled differences leaves 0 out."""
    low, high = percentiles(differences)
    return low > ROUND_OFF or high < -ROUND_OFF


@dataclass(frozen=True)
class Compared:
    """Models of the same images, under attacks with the same budgets, protocol and steps."""

    models: Sequence[Model]
    columns: Columns

    @classmethod
    def of(cls, compared: Sequence[Model], names: Collection[str] = ()) -> Compared:
        """InputError where they do not compare, or where none of them has one of the named columns: clean, an attack,
        an average, `union of all`, `worst attack` or union(ATTACK,...)."""
        models.expect_comparable(compared, models.attack_names(compared))
        unions = [named[1].split(",") for name in names if (named := _UNION.fullmatch(name))]
        made = cls(compared, Columns.of(compared, unions, None, None))
        for name in names:
            if not any(name in values for values in made.values):
                known = (*made.columns.before, AVERAGE, *made.columns.after)
                raise unknown("column", name, known)
        return made

    @cached_property
    def values(self) -> list[dict[str, float]]:
        """Of each model, column -> its accuracy, the mean over its seeds."""
        found = ({name: np.asarray(scores.mean()) for name, scores in self._scores(k).items()} for k in self._all)
        return [{name: float(mean) for name, mean in self.columns.with_worst(each).items()} for each in found]

    def sampled(self, names: Collection[str]) -> list[dict[str, Floats]]:
        """Of each model, column -> its means (resamples,) over images, drawn once for all models, and seeds; of the
        named columns that it has, and what they are made of."""
        parts = {*names, *(self.columns.attacks if WORST_ATTACK in names else ())}
        draws = Draws.of(self.models[0].images, [len(model.runs) for model in self.models])
        found = []
        for k in self._all:
            scores = {name: held for name, held in self._scores(k).items() if name in parts}
            means = draws.means(k, np.stack(list(scores.values()))) if scores else ()
            found.append(self.columns.with_worst(dict(zip(scores, means, strict=True))))
        return found

    @property
    def _all(self) -> range:
        return range(len(self.models))

    def _scores(self, k: int) -> dict[str, Floats]:
        return self.columns.scores(self.models[k])
