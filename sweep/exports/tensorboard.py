"""A sweep as TensorBoard's event files: a folder a run, with its curves, its final numbers and its settings."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from sweep.exports import TARGETS, Asked, Made
from sweep.exports.places import MADE_BY, replacing
from sweep.exports.runs import Run, runs

MARK = "export.json"


@TARGETS.register("tensorboard")
def export(asked: Asked, where: str) -> Made:
    """Into the folder `where`/<sweep id>, so that one TensorBoard compares several sweeps."""
    store = asked.whole("tensorboard")
    place = Path(where).expanduser() / store.sweep_id
    with replacing(place, MARK, lambda name: name == MARK or "events.out.tfevents" in name) as folder:
        (folder / MARK).write_text(json.dumps(MADE_BY | {"sweep": store.sweep_id}))
        for run in runs(store):
            _write(folder / run.name, run)
    return Made(str(place), f"tensorboard --logdir {shlex.quote(where)}   (pip install tensorboard)")


def _write(folder: Path, run: Run) -> None:
    """Curves over the epochs; the final numbers at the last one, and beside the settings under HPARAMS."""
    import tensorboardX  # type: ignore[import-untyped]

    final, last = run.final(), max((epoch for epoch, _ in run.curves()), default=0)
    with tensorboardX.SummaryWriter(str(folder)) as writer:
        for epoch, numbers in run.curves():
            for name, number in numbers.items():
                writer.add_scalar(f"epochs/{name}", number, epoch)
        for name, number in final.items():
            writer.add_scalar(name, number, last)
        for summary in tensorboardX.summary.hparams(run.params, final):
            writer.file_writer.add_summary(summary)
