"""The papers' figures that are data but print no numbers: curves over epochs and budgets, class weights, confusions,
the SVM. Rows of what was measured, and how it was read; accuracies in percent."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sweep.bits import unpack_classes
from sweep.papers import layouts
from sweep.papers.cells import fits, reproduce
from sweep.papers.layouts import Layout, Metric, Paper
from sweep.papers.measured import Measured, Model, Row, robust
from sweep.papers.metrics import Reader
from sweep.papers.printed import Number
from sweep.schema import EXPERIMENT
from sweep.tables.models import AVERAGED, CLEAN

Rows = list[dict[str, Any]]
VALIDATION, TRAINING = "validation images", "training images, as they were attacked"


def rows(paper: str, table: str, measured: Measured) -> tuple[Rows, list[str]]:
    """The rows of a figure, and notes: what is missing, with the command that would fill it, among them."""
    chosen, about = layouts.layout(paper, table), layouts.paper(paper)
    found = KINDS[chosen.kind](about, chosen, measured)
    drawn = {row["method"] for row in found}
    told = chosen.unprinted or layouts.Unprinted()
    lacking = [name for name in told.methods if name not in drawn]
    notes = [chosen.note] if chosen.note else []
    if found and chosen.kind != "svm" and not set(measured.datasets) & set(about.datasets[told.dataset]):
        notes.append(f"measured on {', '.join(measured.datasets)}, the paper on {told.dataset}")
    if lacking:
        notes.append(f"missing: {'; '.join(lacking)}; {reproduce(paper, table)}")
    return found, notes


def _series(paper: Paper, chosen: Layout, measured: Measured) -> Iterator[tuple[str, Model]]:
    """Printed method -> the model of it, the best on the validation split of several: on the figure's data set, or on
    any where no sweep is on that."""
    told = chosen.unprinted or layouts.Unprinted()
    own = set(paper.datasets[told.dataset]) & set(measured.datasets) or set(measured.datasets)
    for method in told.methods:
        find = paper.find(chosen, Number("", told.dataset, "", "", method, "", "", None, None, ""))
        fit = [model for model in measured.models if model.dataset in own and fits(find, model)]
        if fit:
            yield method, max(fit, key=lambda model: model.value or 0.0)


def _epochs(paper: Paper, chosen: Layout, measured: Measured) -> Rows:
    """Clean and average robust accuracy after each epoch: of the validation images where the sweep judged every epoch,
    else what the attacks of training left of their batches."""
    told = chosen.unprinted or layouts.Unprinted()
    found: Rows = []
    for method, model in _series(paper, chosen, measured):
        series = list(_validated(Reader(paper, told.dataset, measured), model))
        if len(series) <= 1:
            series = list(_trained(model, paper.metrics, measured))
        found += [{"method": method} | row for row in series]
    return found


def _validated(reader: Reader, model: Model) -> Iterator[dict[str, Any]]:
    keys, measured = [run.key for run in model.runs], reader.measured
    by_epoch: dict[int, dict[str, dict[str, Row]]] = {}
    for store in measured.stores:
        for row in sorted(measured.verdicts(store, "val", keys), key=lambda row: bool(row["weights"] == AVERAGED)):
            by_epoch.setdefault(row["epoch"], {}).setdefault(row["trial"], {})[row["attack"]] = row
    for epoch, rows in sorted(by_epoch.items()):
        runs = [replace(run, judged={"": rows.get(run.key, {})}) for run in model.runs]
        then = replace(model, runs=runs)
        read = {name: reader.read(then, name) for name in ("clean", "avg_robust")}
        told = {name: None if one is None else 100 * one.mean for name, one in read.items()}
        yield {"epoch": epoch, **told, "seeds": len(runs), "source": VALIDATION}


def _trained(model: Model, metrics: Mapping[str, Metric], measured: Measured) -> Iterator[dict[str, Any]]:
    runs = [measured.epochs.get(run.key, []) for run in model.runs]
    for rows in zip(*runs, strict=False):
        left = [_weighted(json.loads(row["robust"] or "{}"), metrics) for row in rows]
        known = [value for value in left if value is not None]
        mean = 100 * statistics.fmean(known) if known and len(known) == len(left) else None
        yield {"epoch": rows[0]["epoch"], "clean": None, "avg_robust": mean, "seeds": len(rows), "source": TRAINING}


def _weighted(left: Mapping[str, float], metrics: Mapping[str, Metric]) -> float | None:
    """(mean lp + mean semantic) / 2 of the attacks that training met in the epoch; of one family where only that."""
    families = [[left[name] for name in metrics[group].mean if name in left] for group in ("avg_lp", "avg_semantic")]
    means = [statistics.fmean(family) for family in families if family]
    return statistics.fmean(means) if means else None


def _curves(paper: Paper, chosen: Layout, measured: Measured) -> Rows:
    """Accuracy under each attack over the budgets at which it was judged, of one or several evaluations."""
    told = chosen.unprinted or layouts.Unprinted()
    names = [name for metric in told.metrics for name in paper.metrics[metric].attacks]
    found: Rows = []
    for method, model in _series(paper, chosen, measured):
        keys = [run.key for run in model.runs]
        rows = [row for store in measured.stores for row in measured.verdicts(store, measured.split, keys)]
        by: dict[tuple[int, float], list[float]] = {}
        for row in rows:
            if row["attack"] in names:
                by.setdefault((names.index(row["attack"]), row["epsilon"]), []).append(robust(row))
        for (place, epsilon), values in sorted(by.items()):
            about = {"attack": names[place], "epsilon": epsilon, "robust": 100 * statistics.fmean(values)}
            found.append({"method": method} | about | {"seeds": len(values)})
    return found


def _classes(paper: Paper, chosen: Layout, measured: Measured) -> Rows:
    """The mean weight of a class's images in each epoch; times their number it is the sum that the figure shows."""
    found: Rows = []
    for method, model in _series(paper, chosen, measured):
        runs = [measured.epochs.get(run.key, []) for run in model.runs]
        for rows in zip(*runs, strict=False):
            weights = [json.loads(row["class_weights"]) for row in rows if row["class_weights"]]
            if weights and len(weights) == len(rows):
                means = {
                    name: statistics.fmean(one[name] for one in weights) for name in sorted(weights[0], key=_place)
                }
                found.append({"method": method, "epoch": rows[0]["epoch"], **means, "seeds": len(rows)})
    return found


def _place(name: str) -> tuple[bool, int, str]:
    """Classes in the order of their numbers."""
    return not name.isdigit(), int(name) if name.isdigit() else 0, name


def _confusion(paper: Paper, chosen: Layout, measured: Measured) -> Rows:
    """A row for each true class: the share of its images, in percent, that were taken for each class."""
    told = chosen.unprinted or layouts.Unprinted()
    found: Rows = []
    for method, model in _series(paper, chosen, measured):
        runs = [_classified(measured, run.key) for run in model.runs]
        for metric in told.metrics:
            name = paper.metrics[metric].attacks[0]
            pairs = [(rows[CLEAN], rows[name]) for rows in runs if rows.keys() >= {CLEAN, name}]
            if pairs and len(pairs) == len(runs):
                counts = _summed([confusion(*pair) for pair in pairs])
                found += _shares({"method": method, "attack": name}, counts, len(pairs))
    return found


def _classified(measured: Measured, key: str) -> dict[str, Row]:
    """Attack -> its row, of the first evaluation that kept the classes."""
    for store in measured.stores:
        rows = measured.verdicts(store, measured.split, [key], ("predicted", "labels"))
        held = {row["attack"]: row for row in rows if row["predicted"] is not None}
        if held.get(CLEAN, {}).get("labels"):
            return held
    return {}


def confusion(clean: Row, attacked: Row) -> Any:
    """How many images of each true class (row) were taken for each class (column); an image whose logits were no
    numbers is in no column."""
    labels = unpack_classes(clean["labels"], clean["n"])
    taken = unpack_classes(attacked["predicted"], attacked["n"])
    size = 1 + max(int(labels.max()), int(taken.max()))
    counts = np.zeros((size, size), np.int64)
    held = taken >= 0
    np.add.at(counts, (labels[held], taken[held]), 1)
    return counts


def _summed(counts: Sequence[Any]) -> Any:
    """Over seeds; one whose images never were taken for the last classes has fewer columns."""
    size = max(map(len, counts))
    return sum(np.pad(one, (0, size - len(one))) for one in counts)


def _shares(about: dict[str, Any], counts: Any, seeds: int) -> Iterator[dict[str, Any]]:
    for label, row in enumerate(counts):
        n = int(row.sum())
        shares = {str(k): 100 * float(count) / n if n else None for k, count in enumerate(row)}
        yield about | {"true class": label, **shares, "n": n // seeds, "seeds": seeds}


def _svm(paper: Paper, chosen: Layout, measured: Measured) -> Rows:
    """Loss and flipped weights of every step of the figure's cases."""
    told = chosen.unprinted or layouts.Unprinted()
    names: dict[str, str] = {}
    for store, document in zip(measured.stores, measured.documents, strict=True):
        if document.get("kind") == EXPERIMENT:
            names |= {row["key"]: row["method"] for row in store.ended()}
    return [
        {"method": method, "step": row["epoch"], "loss": row["train_loss"], "flips": row["flips"]}
        for method in told.methods
        for key, name in names.items()
        if name == method
        for row in measured.epochs.get(key, [])
    ]


KINDS: dict[str, Callable[[Paper, Layout, Measured], Rows]] = {
    "epochs": _epochs,
    "curves": _curves,
    "classes": _classes,
    "confusion": _confusion,
    "svm": _svm,
}
