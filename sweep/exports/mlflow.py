"""A sweep as an experiment of MLflow, on a tracking server or in a database."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from attacks.errors import InputError
from sweep.exports import TARGETS, Asked, Made, line, needed, shown
from sweep.exports.places import MADE_BY
from sweep.exports.runs import Run, runs
from sweep.spec import digest
from sweep.store import COMPLETE, FAILED, PLANNED, PRUNED, Store

STATUS = {COMPLETE: "FINISHED", PRUNED: "KILLED", FAILED: "FAILED", PLANNED: "SCHEDULED"}
_METRICS, _PARAMS = 1000, 100
"""How many a call may hold."""
_RUN, _DIGEST = "sweep.run", "sweep.digest"


@TARGETS.register("mlflow")
def export(asked: Asked, where: str) -> Made:
    """`where`: a tracking URI. The experiment has the sweep's id, and a run is one of its runs; one that changed since
    the last export is made anew, the others stay."""
    store = asked.whole("mlflow")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import: an export tells nobody else
    mlflow = needed("mlflow")
    try:
        _put(mlflow, mlflow.MlflowClient(tracking_uri=where), store)
    except InputError:
        raise
    except Exception as error:  # MLflow's, its transport's, SQLAlchemy's
        raise InputError(f"cannot export to MLflow at {shown(where)}: {line(error)}") from error
    ui = where if where.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(shown(where))}"
    return Made(f"experiment {store.sweep_id} in {shown(where)}", ui)


def _put(mlflow: Any, client: Any, store: Store) -> None:
    experiment = _experiment(client, store)
    held = {run.data.tags.get(_RUN): run for run in _all(client, experiment)}
    for run in runs(store):
        same = digest([run.name, run.row["state"], run.params, run.final(), list(run.curves())])
        if (old := held.get(run.id)) is not None:
            if old.data.tags.get(_DIGEST) == same:
                continue
            client.delete_run(old.info.run_id)
        _write(mlflow, client, experiment, run, same)


def _experiment(client: Any, store: Store) -> str:
    mark = MADE_BY | {"sweep": store.sweep_id}
    found = client.get_experiment_by_name(store.sweep_id)
    if found is None:
        return str(client.create_experiment(store.sweep_id, tags=mark))
    if not mark.items() <= found.tags.items():
        raise InputError(
            f"an experiment {store.sweep_id!r} is there that is no export of this sweep: choose another URI"
        )
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _all(client: Any, experiment: str) -> Iterator[Any]:
    page = client.search_runs([experiment])
    yield from page
    while page.token:
        page = client.search_runs([experiment], page_token=page.token)
        yield from page


def _write(mlflow: Any, client: Any, experiment: str, run: Run, same: str) -> None:
    """A run with its curves and, at the last epoch, its final numbers."""
    entities = mlflow.entities
    began, ended = _milliseconds(run.row["started"]), _milliseconds(run.row["finished"])
    tags = {_RUN: run.id, "sweep.key": run.row["key"], "sweep.state": run.row["state"]}
    made = client.create_run(experiment, start_time=began, run_name=run.name, tags=tags).info.run_id
    points = [(name, number, epoch) for epoch, numbers in run.curves() for name, number in numbers.items()]
    last = max((epoch for epoch, _ in run.curves()), default=0)
    points += [(name, number, last) for name, number in run.final().items()]
    for some in _cut(points, _METRICS):
        client.log_batch(made, metrics=[entities.Metric(name, x, ended, epoch) for name, x, epoch in some])
    for some in _cut(list(_texts(run.params).items()), _PARAMS):
        client.log_batch(made, params=[entities.Param(*item) for item in some])
    client.set_terminated(made, STATUS[run.row["state"]], ended)
    client.set_tag(made, _DIGEST, same)  # last: a run that was not written whole is made anew


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: held if isinstance(held, str) else json.dumps(held) for name, held in params.items()}


def _milliseconds(moment: datetime | None) -> int:
    return 0 if moment is None else int(moment.timestamp() * 1000)


def _cut(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[first : first + size] for first in range(0, len(items), size)]
