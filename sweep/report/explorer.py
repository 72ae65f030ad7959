"""What the page needs to answer, by itself, which images survive any set of attacks: the stored bits."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attacks.errors import InputError
from sweep.bits import pack
from sweep.report.standing import Standing
from sweep.report.words import DASH, Grid, percent
from sweep.tables.models import PRETRAINED, Model

MOST_BYTES = 3_000_000
"""Of bits in the page, before base64: of the models that come first."""
_PRESETS = {"lp": ("lp",), "semantic": ("semantic", "perceptual"), "all": ("lp", "semantic", "perceptual")}


@dataclass(frozen=True)
class Explorer:
    """Models whose verdicts may be joined, the chosen one first. `families`: attack -> family; `left_out`: model ->
    why; `unshown`: how many more there are."""

    models: Sequence[Model]
    families: dict[str, str]
    left_out: dict[str, str]
    unshown: int

    @property
    def presets(self) -> dict[str, list[str]]:
        """Name -> attacks, of the sets that have some."""
        sets = {name: [a for a, family in self.families.items() if family in held] for name, held in _PRESETS.items()}
        return {name: names for name, names in sets.items() if names}

    @property
    def by_family(self) -> dict[str, list[str]]:
        held = dict.fromkeys(self.families.values())
        return {family: [a for a, own in self.families.items() if own == family] for family in held}

    @property
    def labels(self) -> list[str]:
        return [label(model) for model in self.models]

    def embedded(self) -> dict[str, Any]:
        """What the page's script reads: each run's packed bits in base64."""
        models = [
            {"label": label(model), "n": model.images, "start": model.method == PRETRAINED}
            | {"runs": [{"seed": next(iter(run.values()))["seed"], "bits": self._bits(run)} for run in model.runs]}
            for model in self.models
        ]
        return {"presets": self.presets, "models": models}

    def joined(self) -> Grid:
        """What survives the usual sets of attacks, a row for each model."""
        rows = [[label(model), *(survive(model, names) for names in self.presets.values())] for model in self.models]
        heads = [f"{name} ({len(names)})" for name, names in self.presets.items()]
        caption = "Images that survive all attacks of a set together, in percent, mean over seeds"
        return Grid(caption, ["Model", *heads], rows)

    def _bits(self, run: Any) -> dict[str, str]:
        return {name: base64.b64encode(pack(run[name]["robust"])).decode() for name in self.families if name in run}


def explorer(standing: Standing) -> Explorer | None:
    """None where no model's verdicts can be joined."""
    models: list[Model] = []
    left_out, spent = {}, 0
    families = _families(standing)
    for model in (standing.table.models[place] for place in standing.first()):
        try:
            model.expect_union([name for name in families if model.met([name])])
        except InputError as e:
            left_out[label(model)] = str(e)
            continue
        spent += len(model.runs) * len(families) * -(-model.images // 8)
        if models and spent > MOST_BYTES:
            break
        models.append(model)
    if not models or not families:
        return None
    return Explorer(models, families, left_out, standing.models - len(models) - len(left_out))


def _families(standing: Standing) -> dict[str, str]:
    """Attack -> family, of those that saw every image."""
    rows = {name: row for model in standing.table.models for run in model.runs for name, row in run.items()}
    return {name: str(rows[name]["family"]) for name in standing.attacks if not rows[name]["conditional"]}


def survive(model: Model, names: Sequence[str]) -> str:
    return percent(float(model.together(names).mean())) if model.met(names) else DASH


def label(model: Model) -> str:
    """A model's name: its method, its configuration's number, and its weights where they are averaged."""
    if model.number is None:
        return "starting model" if model.method == PRETRAINED else model.method
    averaged = ", averaged weights" if model.weights == "averaged" else ""
    return f"{model.method} (trial {model.number}{averaged})"
