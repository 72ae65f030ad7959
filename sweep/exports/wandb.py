"""A sweep as runs of a W&B project, a group a sweep; with $WANDB_MODE=offline in ./wandb or $WANDB_DIR."""

from __future__ import annotations

import shlex
from typing import Any

from attacks.errors import InputError
from sweep.exports import TARGETS, Asked, Made, line, needed
from sweep.exports.runs import Run, runs
from sweep.settings import nest
from sweep.store import FAILED, Store


@TARGETS.register("wandb")
def export(asked: Asked, where: str) -> Made:
    """`where`: PROJECT or ENTITY/PROJECT. A run has an id of its own, under which a later export writes over it."""
    store = asked.whole("wandb")
    wandb = needed("wandb")
    entity, _, project = where.rpartition("/")
    try:
        written = [_write(wandb, entity or None, project, store, run) for run in runs(store)]
    except Exception as error:  # of the key, the network, the names
        raise InputError(
            f"cannot export to W&B project {where} ({line(error)}): `wandb login`, or set WANDB_MODE=offline"
        ) from error
    finally:
        wandb.teardown()  # ends the process that it started
    if not written[0].offline:
        return Made(f"{len(written)} runs in {where}", str(written[0].url).rpartition("/runs/")[0])
    folder = written[0].settings.wandb_dir
    return Made(
        f"{len(written)} runs in {folder}", f"wandb sync {shlex.quote(folder)}/offline-run-*-{store.sweep_id}-*"
    )


def _write(wandb: Any, entity: str | None, project: str, store: Store, run: Run) -> Any:
    """A run with its curves and, in its summary, its final numbers."""
    made = wandb.init(
        entity=entity,
        project=project,
        group=store.sweep_id,
        id=f"{store.sweep_id}-{run.id}",
        name=run.name,
        job_type=str(run.row["state"]).lower(),
        tags=[run.method[:64]],
        config=nest({**run.params, "key": run.row["key"]}),
        reinit="create_new",
        settings=wandb.Settings(
            silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True
        ),
    )
    for epoch, numbers in run.curves():
        made.log(numbers, step=epoch)
    made.summary.update(run.final())
    made.finish(exit_code=int(run.row["state"] == FAILED))
    return made
