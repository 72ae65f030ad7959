"""The trade-off heat map: of a matrix that `tradeoff` measured, or of the prior that the sweep's own phase I left."""

from __future__ import annotations

from typing import Any

import numpy as np

from attacks.errors import InputError, unknown
from sweep import alternatives, status
from sweep.report import figures
from sweep.report.snapshot import Snapshot
from sweep.report.words import Chart, Grid, Section, points
from sweep.schema import TRADEOFF
from sweep.store import Store, sweep_ids

_TITLE = "Trade-off between attacks"


def tradeoff(store: Snapshot, matrix_id: str | None) -> Section:
    """Row: the attack trained on; column: the change of robust accuracy against each."""
    if matrix_id is not None:
        return _measured(Store(store.storage, matrix_id))
    found = prior(store)
    if found is not None:
        names = list(found.attacks)
        said = f"From phase I of this sweep: one epoch, judged on {found.probe} training images held out for it."
        return Section("tradeoff", _TITLE, [said], [_chart(names, names, found.tradeoff.double().numpy())])
    how = "python -m sweep tradeoff --help"
    said = f"No matrix is stored with this sweep. `{how}` measures one; then give its id: report --tradeoff ID."
    return Section("tradeoff", _TITLE, [said])


def _measured(matrix: Store) -> Section:
    if matrix.document().get("kind") != TRADEOFF:
        stores = (Store(matrix.storage, name) for name in sweep_ids(matrix.storage))
        known = [store.sweep_id for store in stores if store.document().get("kind") == TRADEOFF]
        raise unknown("trade-off matrix", matrix.sweep_id, known)
    rows = matrix.tradeoff().to_pylist()
    if not rows:
        how = status.command("ls", matrix, " ")
        raise InputError(f"the matrix {matrix.sweep_id} is not finished (see `{how.strip()}`): its own command goes on")
    names = list(dict.fromkeys(row["trained_on"] for row in rows))
    columns = list(dict.fromkeys(row["attack"] for row in rows))
    effect = {(row["trained_on"], row["attack"]): row["effect"] for row in rows}
    values = np.array([[effect.get((a, b), np.nan) for b in columns] for a in names], float)
    said = f"From {matrix.sweep_id}: each row fine-tuned on one attack, judged on the validation split."
    return Section("tradeoff", _TITLE, [said], [_chart(names, columns, values)])


def _chart(names: list[str], columns: list[str], values: Any) -> Chart:
    off = [(values[i, j], a, b) for i, a in enumerate(names) for j, b in enumerate(columns) if a != b]
    worst, a, b = min(off, key=lambda one: one[0])
    rows = [[name, *(points(float(value)) for value in row)] for name, row in zip(names, values, strict=True)]
    return Chart(
        "tradeoff",
        "Change of robust accuracy, in points",
        f"Heat map: training on each of {len(names)} attacks (rows) changes robustness against each (columns); the "
        f"strongest loss is {points(float(worst))} points against {b} by training on {a}.",
        figures.heat(names, columns, 100 * values, "judged under (row: trained on)"),
        Grid("Change in percentage points; row: trained on, column: judged under", ["Trained on", *columns], rows),
    )


def prior(store: Snapshot) -> Any:
    """The trainers.tradeoff.Prior of the first alternative that measured one, with the sweep's first seed, or None."""
    from sweep import trial
    from sweep.candidates import hashed
    from sweep.priors import Priors

    document = store.document()
    try:
        sweep = alternatives.reload(document["spec"])
        init = store.folder.read("init.safetensors")
    except FileNotFoundError:
        return None
    for name in sweep.reached():
        base = sweep.configure(sweep.named(name, {}), sweep.seeds[0])
        if base.compose().sampler.needs_prior:
            return Priors(store.storage, hashed(init), document["fingerprint"]).stored(base, trial.starting(init))
    return None
