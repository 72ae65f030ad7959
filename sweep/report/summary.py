"""The first screen: which model, how robust, how sure; and how far the sweep is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep import lease, status
from sweep.goals import VALUE
from sweep.report.robustness import spelled
from sweep.report.snapshot import Snapshot
from sweep.report.standing import Cells, Standing
from sweep.report.words import counted, interval, listed, points, settings, share
from sweep.store import COMPLETE, FAILED, PLANNED, PRUNED
from sweep.tables.columns import WORST_CASE

RUNNING, UNFINISHED, FINISHED = "running", "not finished", "finished"
MOST_RIVALS = 10
_STATES = (COMPLETE, PRUNED, FAILED, PLANNED)


@dataclass(frozen=True)
class Fact:
    """A question, its answer in a few characters, and the sentences under it."""

    question: str
    answer: str
    said: list[str]


def state(store: Snapshot) -> str:
    """Whether a driver holds the sweep, trials are left, or all is done."""
    holder = lease.holder(store.folder)
    if holder is not None and not holder.dead():
        return RUNNING
    left = any(run["state"] == PLANNED for run in store.trials().to_pylist())
    return UNFINISHED if left or len(store.plans()) < store.document()["trials"] else FINISHED


def lead(store: Snapshot) -> str:
    """What the sweep is, in a sentence."""
    document = store.document()
    plans, seeds = store.plans(), {run["seed"] for run in store.trials().to_pylist()}
    return (
        f"{counted(len(plans), 'configuration')} of {document['trials']} with {counted(len(seeds), 'seed')} each, by "
        f"{document.get('method')}, on {document.get('dataset')}; model {document.get('model')}, started from "
        f"{document.get('init')}."
    )


def states(store: Snapshot) -> str:
    """How many runs are in each state."""
    held = Counter(run["state"] for run in store.trials().to_pylist())
    return ", ".join(f"{held[name]} {name}" for name in _STATES if held[name]) or "no run is planned yet"


def facts(store: Snapshot, standing: Standing) -> list[Fact]:
    """The three answers, each of the configuration with the best value on the validation split."""
    chosen = store.best()
    if chosen is None:
        return [Fact("Which model?", "none yet", ["No configuration has finished all of its runs."])]
    which = Fact("Which model?", chosen["method"], _which(store, chosen))
    row = standing.row(standing.best)
    if row is None:
        said = [f"Trial {chosen['number']} has not been judged on the {standing.split_name} split."]
        return [which, Fact("How robust?", "not judged yet", said)]
    return [which, _robust(standing, row), _sure(store, row)]


def _which(store: Snapshot, chosen: Mapping[str, Any]) -> list[str]:
    told = settings(chosen["params"])
    found, objective = len(store.configurations()), store.goal().objectives[0]
    return [
        f"Trial {chosen['number']}" + (f": {told}" if told else ""),
        f"Best of {counted(found, 'finished configuration')} by {_spoken(objective)} on the validation split, "
        f"{share(chosen['metrics'][objective])}.",
    ]


def _spoken(metric: str) -> str:
    return "the value" if metric == VALUE else metric


def _robust(standing: Standing, best: Cells) -> Fact:
    parts = [f"{spelled(name)} {share(best[name])}" for name in standing.averages[:-1]]
    together = best.get(WORST_CASE)
    return Fact(
        "How robust?",
        share(best["average"]),
        [
            f"Average accuracy under attack, {standing.split_name} split.",
            f"Clean {share(best['clean'])}, {listed(parts)}.",
            *([f"Against all attacks together {share(together)}."] if together is not None else []),
        ],
    )


def _sure(store: Snapshot, best: Cells) -> Fact:
    around = f"The average lies in {interval(best, 'average').partition(' ')[2]}\u00a0% (95\u00a0% interval)."
    seen = f"From {counted(best['seeds'], 'seed')} and {counted(best['images'], 'image')}, resampled together."
    near = _near(store)
    if best.get("gain") is None:
        return Fact("How sure?", "no starting model", [around, seen, *near])
    apart = best["gain_low"] > 0 or best["gain_high"] < 0
    verdict = "the interval excludes 0" if apart else "the interval holds 0, so it may be noise"
    gained = f"Gain over the starting model, {interval(best, 'gain', points).partition(' ')[2]}: {verdict}."
    return Fact("How sure?", f"{points(best['gain'])} points", [gained, around, seen, *near])


def _near(store: Snapshot) -> list[str]:
    """The configurations that might as well have been chosen, of those that came next: those within noise of the first
    or, of several objectives, the front."""
    first = store.configurations()[:MOST_RIVALS]
    keys = {run["key"] for one in first for run in one["runs"]}
    rivals = [row["number"] for row in status.best(store.only(keys))[1:]]
    if not rivals:
        return []
    named = listed(sorted(rivals)) + (" among others" if len(rivals) == MOST_RIVALS - 1 else "")
    objectives = store.goal().objectives
    with_it = f"With it on the front of {listed(map(_spoken, objectives))}" if objectives[1:] else "Within noise of it"
    return [f"{with_it} on the validation split: trial{'s' if len(rivals) > 1 else ''} {named}."]
