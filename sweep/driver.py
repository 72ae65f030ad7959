"""run and resume: from a resolved sweep to its finished folder. One code path for both."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from attacks.errors import InputError
from sweep import access, alternatives, datasets, engine, estimate, examples, idle, memory, trial
from sweep.alternatives import Sweep
from sweep.candidates import hashed
from sweep.confirmation import chosen
from sweep.control import Control, Limits
from sweep.earlier import recalled
from sweep.engine import Resources
from sweep.lease import Lease
from sweep.packing import Packing
from sweep.planner import Listener, Planner
from sweep.progress import Progress
from sweep.search import WARM_START
from sweep.spec import TrialBase
from sweep.starting import expect_start, starting_model
from sweep.storage import Storage
from sweep.store import Store
from sweep.tables import PRETRAINED
from sweep.trial import Job, Task
from sweep.verdicts import Subject, rows
from sweep.watchdog import HANG_SECONDS
from trainers.data import Dataset, ImageSet
from trainers.step import Diverged
from trainers.workers import Workers

VERSIONS = ("torch", "ray", "optuna", "pyarrow", "pandas", "numpy")


@dataclass(frozen=True)
class Where:
    """Where a sweep runs and what it reads: nothing here changes a result."""

    storage: Storage
    data_root: str | None = None
    address: str | None = None
    cpus: int = 1
    gpus: float | None = None
    max_concurrent: int = 0
    packed: bool = False
    hang_seconds: float = HANG_SECONDS
    verbose: bool = False


def new_id(space: str) -> str:
    """`cas-20261120-213000-3f2a`: the space, the moment (UTC), four random hex digits."""
    return f"{Path(space).stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"


def create(sweep: Sweep, where: Where, sweep_id: str, warm_start: Sequence[str] = ()) -> Store:
    """Writes sweep.json, once the data, the starting model and the cluster's address have been found sound, with what
    its search begins with, of the sweeps `warm_start`. Refuses an id that exists."""
    access.expect_reachable(where.address)
    images = load(sweep.trial, where.data_root)
    store = Store(where.storage, sweep_id)
    base = sweep.trial
    for alternative in sweep.alternatives.values():
        expect_start(alternative.trial, images)
    found, told = recalled(sweep, images.fingerprint, [Store(where.storage, other) for other in warm_start])
    store.create(
        {
            "created": datetime.now(UTC).isoformat(),
            "space": sweep.space,
            "method": ", ".join(sweep.alternatives),
            "dataset": base.dataset,
            "fingerprint": images.fingerprint,
            "model": f"{base.model.name}-{base.model.width}",
            "init": base.init,
            "seed": base.seed,
            "trials": sweep.trials,
            "spec": sweep.model_dump(mode="json"),
            "versions": versions(),
            "revision": revision(),
        }
        | ({WARM_START: {"told": told, "trials": found}} if warm_start else {})
    )
    return store


def outlook(sweep: Sweep, where: Where, price: float | None) -> list[dict[str, Any]]:
    """What the sweep would take, timed on a worker of the cluster; see estimate.costs. Nothing is written."""
    images = load(sweep.trial, where.data_root)
    with engine.cluster(where.address, verbose=where.verbose):
        granted = _granted(sweep, where)
        cost = engine.wait([engine.remote(estimate.measure, granted, sweep, images)])[0]
    return estimate.costs(sweep, images, cost, granted, price)


def extend(store: Store, more: int) -> None:
    """Plans `more` configurations on top of those that the sweep was to have; InputError where a grid has no more."""
    document = store.document()
    sweep = alternatives.reload(document["spec"])
    trials = sweep.trials + more
    if (grown := sweep.grown(trials)).trials < trials:
        raise InputError(f"expected at most {grown.trials - sweep.trials} more trials of a grid, got {more}")
    with Lease(store.folder):
        store.amend({**document, "trials": trials, "spec": grown.model_dump(mode="json")})


def load(base: TrialBase, data_root: str | None) -> Dataset:
    return datasets.load(
        base.dataset,
        data_root=data_root,
        train_size=base.train_size,
        eval_size=base.eval_size,
        test_size=base.test_size,
        split_seed=base.split_seed,
    )


def drive(
    store: Store,
    where: Where,
    progress: Progress,
    check: Callable[[], None] = lambda: None,
    limits: Limits = Limits(),  # noqa: B008
    retry_failed: bool = False,
) -> None:
    """Runs what is left of a sweep, within limits, then judges the pre-trained and the reported models on the test
    split. `check` is called whenever a trial begins, reports or ends, and stops the sweep by raising."""
    document = store.document()
    sweep = alternatives.reload(document["spec"])
    images = load(sweep.trial, where.data_root)
    if images.fingerprint != document["fingerprint"]:
        raise InputError(
            f"expected the data that {store.sweep_id} began with (fingerprint {document['fingerprint']}), got "
            f"{images.fingerprint}: point --data-root at the same files"
        )
    store = Store(store.storage.patient(), store.sweep_id)
    with (
        Lease(store.folder) as lease,
        engine.cluster(where.address, verbose=where.verbose),
    ):
        granted = _granted(sweep, where)
        packing = _packing(granted, where.packed)
        init = starting_model(store, sweep.trial, images, granted, progress.say)
        job = Job(
            where.storage.uri,
            store.sweep_id,
            document["spec"],
            hashed(init),
            images.fingerprint,
            revision(),
            where.hang_seconds,
        )
        for line in document.get(WARM_START, {}).get("told", ()):
            progress.say(line)
        baseline = engine.remote(judge_start, granted, job, init, images.test)
        if priors := [task for task in _defaults(sweep) if task.of(sweep).compose().sampler.needs_prior]:
            progress.say("phase I: measuring the prior and the trade-off matrix (kept beside the starting model)")
            engine.wait([engine.remote(measure_prior, granted, job, task, init, images.train) for task in priors])
        control = Control(store.folder, lease.owner, limits, granted.gpus * sweep.trial.workers)
        heard = _while_held(lease, progress.hear, check)
        planner = Planner(job, heard, control, retry_failed, packing)
        searching = progress.searching(planner.done(), sweep.trials, len(sweep.seeds), planner.best())
        with closing(control), searching, idle.recorded(store, lease.owner, granted.max_concurrent):
            engine.search(planner, job, images, init, granted)
        if control.reason:
            progress.say(f"no more trials begin: {control.reason}")
        progress.say(f"judging the pre-trained and {_reported(sweep)} on the test split")
        tasks = _to_test(sweep, store, planner)
        engine.wait([baseline, *(engine.remote(judge_on_test, granted, job, init, images.test, t) for t in tasks)])


def _to_test(sweep: Sweep, store: Store, planner: Planner) -> list[Task]:
    """The runs whose models meet the test split, equal work once."""
    best = {one["number"] for one in chosen(sweep, store)}
    found = store.configurations()
    reported = [one for one in found if one["front"] or one["number"] in best or sweep.test == "all"]
    keys = {run["key"] for one in reported for run in one["runs"] + one["replays"]}
    return list({task.key: task for plan in planner.plans for task in plan if task.key in keys}.values())


def _granted(sweep: Sweep, where: Where) -> Resources:
    return engine.resources(where.cpus, where.gpus, where.max_concurrent, sweep.trial.workers, where.packed)


def _packing(granted: Resources, packed: bool) -> Packing:
    """How much of a GPU the trials get; a GPU's memory is what a worker finds."""
    if not packed:
        return Packing(granted.gpus)
    found = engine.wait([engine.remote(memory.total, granted)])[0]
    return Packing(granted.gpus, found, -(-granted.max_concurrent // granted.all_gpus), granted.all_gpus)


def _reported(sweep: Sweep) -> str:
    """Whose models meet the test split."""
    if sweep.test == "all":
        return "every model"
    if len(sweep.objectives) > 1:
        return "the models of the front" + (f" and of the best {sweep.confirm}" if sweep.confirm else "")
    return f"the models of the best {sweep.confirm}" if sweep.confirm else "the best model"


def _defaults(sweep: Sweep) -> list[Task]:
    """The base trials of the alternatives that are to be run, with each seed."""
    return [Task(0, sweep.named(name, {}), "", seed) for name in sweep.reached() for seed in sweep.seeds]


def _while_held(lease: Lease, listen: Listener, check: Callable[[], None]) -> Listener:
    """The listener, which stops the sweep once another driver has taken it over."""

    def hear(event: str, task: Task, facts: Mapping[str, Any]) -> None:
        check()
        if lease.lost.is_set():
            raise InputError("this driver lost its lease: another one drives the sweep now, or the storage was away")
        listen(event, task, facts)

    return hear


def measure_prior(job: Job, task: Task, init: bytes, train: ImageSet) -> None:
    """Phase I of a base trial, into the cache that all trials with its learning rate, attacks and seed share. Where it
    diverges, the trials that need it will say so, each for itself."""
    model = trial.starting(init)
    with suppress(Diverged):
        job.priors.of(task.of(job.sweep), model, trial.starting(init), train.to(trial.device()))


def judge_start(job: Job, init: bytes, images: ImageSet) -> None:
    """Writes the verdicts on the test split of the starting model."""
    about = Subject(job.init, None, PRETRAINED, "live", 0)
    _judge_on_test(job, about, job.sweep.trial, init, init, images)


def judge_on_test(job: Job, init: bytes, images: ImageSet, task: Task) -> None:
    """Writes the verdicts on the test split of a run's model."""
    about = job.subject(task, job.store.weights_of(task.key))
    saved = job.store.folder.read(f"checkpoints/{task.key}/model.safetensors")
    _judge_on_test(job, about, task.of(job.sweep), saved, init, images)


def _judge_on_test(job: Job, about: Subject, base: TrialBase, weights: bytes, init: bytes, images: ImageSet) -> None:
    """Verdicts that are stored already are not reached again."""
    if job.store.judged(f"{about.trial}-test-"):
        return
    verdicts = trial.judge(base, trial.starting(weights), trial.starting(init), images, Workers(), keep_worst=True)
    name = f"{examples.SPLIT}-{about.weights}"
    job.store.write_examples(about.trial, name, examples.rows(about, base.seed, verdicts))
    job.store.write_results(about.trial, name, rows(base, about, examples.SPLIT, images, verdicts))


def versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONS} | {"python": platform.python_version()}


def revision() -> str:
    """The project's git revision, "+dirty" where files differ from it; empty where there is no git."""
    here = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()
