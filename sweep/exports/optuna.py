"""A sweep as a study in an Optuna storage, for optuna-dashboard and Optuna's own analyses."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from attacks.errors import InputError
from sweep import alternatives
from sweep.exports import TARGETS, Asked, Made, line, shown
from sweep.exports.places import MADE_BY
from sweep.exports.runs import Run, runs
from sweep.goals import Goal, metrics
from sweep.store import COMPLETE, PLANNED, Store, overall


@TARGETS.register("optuna")
def export(asked: Asked, where: str) -> Made:
    """`where`: a URL that Optuna takes, or a file for its journal. The study has the sweep's id; one of that name that
    is no export of this sweep is left alone. What changed since the last export makes the study anew, and notes that
    the dashboard put to it are then lost."""
    store = asked.whole("optuna")
    wanted = _trials(store)
    with _told(where):
        _put(_storage(where), store, wanted)
    return Made(f"study {store.sweep_id} in {shown(where)}", f"optuna-dashboard {shlex.quote(shown(where))}")


def _storage(where: str) -> Any:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" in where:
        return RDBStorage(where)
    _expect_journal(Path(where))
    return JournalStorage(JournalFileBackend(where))


def _expect_journal(path: Path) -> None:
    """Optuna would write at the end of any file."""
    try:
        begun = path.read_bytes().partition(b"\n")[0] if path.exists() else b""
        if not begun or "op_code" in json.loads(begun):
            return
    except (ValueError, TypeError):
        pass
    raise InputError(f"expected a URL such as sqlite:///study.db, or Optuna's journal, got another file: {path}")


def _put(storage: Any, store: Store, wanted: Sequence[Any]) -> None:
    import optuna

    name, mark = store.sweep_id, {**MADE_BY, "sweep": store.sweep_id}
    if name in optuna.study.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        if not mark.items() <= study.user_attrs.items():
            raise InputError(f"a study {name!r} is there that is no export of this sweep: choose another storage")
        if list(map(_facts, study.get_trials(deepcopy=False))) == list(map(_facts, wanted)):
            return
        optuna.delete_study(study_name=name, storage=storage)
    directions = ["maximize"] * len(store.goal().objectives)
    study = optuna.create_study(study_name=name, storage=storage, directions=directions)
    document = store.document()
    about = mark | {key: document.get(key) for key in ("space", "dataset", "model", "init", "revision")}
    for key, value in about.items():
        study.set_user_attr(key, value)
    study.add_trials(wanted)


def _facts(trial: Any) -> tuple[Any, ...]:
    """What of a trial an export says."""
    times = trial.datetime_start, trial.datetime_complete
    said = trial.params, trial.distributions, trial.user_attrs, trial.intermediate_values
    return trial.state, trial.values, *said, *times


def _trials(store: Store) -> list[Any]:
    """One a configuration, in the order of their numbers."""
    from sweep import search

    found: dict[int, list[Run]] = {}
    for run in runs(store):
        if run.row["number"] is not None and not run.row["replay"]:
            found.setdefault(run.row["number"], []).append(run)
    study = search.study(alternatives.reload(store.document()["spec"]))
    goal = store.goal()
    return [_trial(study.described(json.loads(one[0].row["params"])), one, goal) for one in found.values()]


def _trial(described: Mapping[str, Any], mine: Sequence[Run], goal: Goal) -> Any:
    """A configuration with what it reached of the objectives and constraints, the mean of its seeds. Intermediate
    values, of one objective, are the mean training accuracy (of attacked images) at each epoch; user attributes the
    accuracies, as means over the seeds, and seeds, keys and values."""
    from optuna.trial import FrozenTrial, TrialState, create_trial

    rows = [run.row for run in mine]
    state, values, constraints = _state(mine, goal)
    return FrozenTrial(
        number=rows[0]["number"],
        trial_id=-1,  # the storage gives it one
        state=state,
        value=None,
        values=values,
        datetime_start=None if state == TrialState.WAITING else _moment(min, rows, "started"),
        datetime_complete=_moment(max, rows, "finished") if state.is_finished() else None,
        **described,
        user_attrs=_attributes(mine),
        system_attrs=create_trial(state=TrialState.RUNNING, constraints=constraints).system_attrs,
        intermediate_values=_means([dict(_accuracies(run)) for run in mine]) if len(goal.objectives) == 1 else {},
    )


def _state(mine: Sequence[Run], goal: Goal) -> tuple[Any, list[float] | None, dict[str, float]]:
    """The state, the objectives' values, and by how much each constraint is violated."""
    from optuna.trial import TrialState

    from sweep.search import STATES

    state, value = overall([run.row for run in mine])
    if state == PLANNED:
        began = any(run.epochs or run.row["state"] != PLANNED for run in mine)
        return TrialState.RUNNING if began else TrialState.WAITING, None, {}
    reached = {} if value is None else metrics([run.row for run in mine])
    values = goal.values(reached)
    outcome = TrialState.FAIL if state == COMPLETE and values is None else STATES[state]
    return outcome, values, {} if values is None else goal.violations(reached)


def _moment(pick: Any, rows: Sequence[Mapping[str, Any]], column: str) -> datetime:
    """The first or last moment of the runs, in local time as Optuna has it; the epoch's where none is known."""
    known = [row[column] for row in rows if row[column] is not None]
    moment: datetime = pick(known) if known else datetime.fromtimestamp(0).astimezone()
    return moment.astimezone().replace(tzinfo=None)


def _attributes(mine: Sequence[Run]) -> dict[str, Any]:
    rows = [run.row for run in mine]
    listed = {f"{name}s": [row[name] for row in rows] for name in ("seed", "key", "value")}
    errors = [row["error"] for row in rows if row["error"]]
    said = {"method": mine[0].method, **listed, "error": errors[0] if errors else None}
    means = _means([{name: mean for name, mean in run.final().items() if name != "value"} for run in mine])
    return {name: held for name, held in said.items() if held is not None} | means


def _accuracies(run: Run) -> Iterator[tuple[int, float]]:
    return ((epoch, numbers["train_accuracy"]) for epoch, numbers in run.curves() if "train_accuracy" in numbers)


def _means(held: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
    """The mean of what each seed has."""
    names = [name for name in held[0] if all(name in one for one in held)]
    return {name: sum(one[name] for one in held) / len(held) for name in names}


@contextmanager
def _told(where: str) -> Iterator[None]:
    """What SQLAlchemy, Optuna and the file system raise, in one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot export to the Optuna storage {shown(where)}: {line(error)}") from error
