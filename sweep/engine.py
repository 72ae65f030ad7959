"""Runs a sweep's trials through Ray Tune and Ray Train. Ray is imported here and in its neighbours only.

Tune executes and Optuna advises; the sweep's folder is the truth, from which a new driver rebuilds both (DESIGN 4)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sweep.planner import Planner  # and with it Optuna, which workers do without

SILENCE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "10000000000",
    "MALLOC_TOP_PAD_": "100000000",
}
"""glibc keeps freed memory for the next step instead of giving it back; docs/performance.md has what that is worth on
a CPU. Workers of a cluster of our own inherit it."""
for _name, _value in {**SILENCE, **KEEP_MEMORY}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
import ray._private.worker  # noqa: E402
import ray.train  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from ray import tune  # noqa: E402
from ray.train import ScalingConfig  # noqa: E402
from ray.train.torch import TorchConfig, TorchTrainer  # noqa: E402
from ray.tune.integration.ray_train import TuneReportCallback  # noqa: E402

from attacks.errors import InputError  # noqa: E402
from sweep import access  # noqa: E402
from sweep import trial as trials  # noqa: E402
from sweep.groups import GroupTrainer  # noqa: E402
from sweep.trial import Job, Task  # noqa: E402
from trainers.data import Dataset  # noqa: E402
from trainers.workers import Workers  # noqa: E402

T = TypeVar("T")

MAX_FAILURES = 2
"""How often a trial whose process died is started again; it goes on from its last checkpoint."""
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""What `ray up` leaves on the head of a cluster that it makes."""


@dataclass(frozen=True)
class Resources:
    """What one worker gets, how many trials run at a time (0: as many as fit), and how many GPUs there are."""

    cpus: int = 1
    gpus: float = 0.0
    max_concurrent: int = 0
    all_gpus: int = 0


@contextmanager
def cluster(address: str | None, *, verbose: bool) -> Iterator[None]:
    """A connection to the cluster at `address`, or one of our own, on loopback, that ends with it. A connection that
    this process has already is used, and left open."""
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": verbose, "logging_level": "INFO" if verbose else "ERROR"}
    scratch = None
    if address is None:
        scratch = tempfile.mkdtemp(prefix="sweep-ray-")
        _stay_on_loopback()
        quiet |= {"include_dashboard": False}
        quiet |= {"_temp_dir": scratch, "address": "local"}
    else:
        access.expect_reachable(address)
        quiet |= {"address": address}
    try:
        ray.init(**quiet)
    except Exception as e:  # Ray raises that very class where a node of ours takes longer than 30 s to start
        if address is None:
            raise RuntimeError(f"Ray did not start on this machine: {_first_line(e)}") from e
        raise InputError(f"cannot reach a Ray cluster at {address}: {_first_line(e)}") from e
    try:
        yield
    finally:
        ray.shutdown()
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def _stay_on_loopback() -> None:
    """Ray binds a local cluster to every interface, whatever `_node_ip_address` says, except where it believes that
    clusters of several nodes are not to be (its default on macOS and Windows): then it uses 127.0.0.1 throughout."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False


def resources(cpus: int, gpus: float | None, max_concurrent: int, workers: int, packed: bool = False) -> Resources:
    """What a worker gets on the cluster at hand; see `allotted`. One that grows counts as grown."""
    ours = ray._private.worker._global_node.is_head()
    total = ray.cluster_resources() if ours else _grown(ray.cluster_resources())
    found = allotted(total, cpus, gpus, max_concurrent, workers, packed)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    _expect_node(cpus, found.gpus, nodes if ours else nodes + [kind for count, kind in _worker_types() if count])
    return found


def allotted(
    total: Mapping[str, float], cpus: int, gpus: float | None, max_concurrent: int, workers: int, packed: bool
) -> Resources:
    """What a worker gets where there is so much of each kind: one GPU each where there are GPUs and `gpus` does not say
    otherwise. Refuses what no node can give, and more trials at once than fit at least once. Trials that are to be
    `packed` on GPUs are as many as the CPUs allow."""
    share = gpus if gpus is not None else (1.0 if total.get("GPU", 0) else 0.0)
    for kind, each in (("CPU", cpus), ("GPU", share)):
        if each * workers > total.get(kind, 0):
            raise InputError(
                f"expected at least {each * workers:g} {kind}s for a trial of {workers} workers, the cluster has "
                f"{total.get(kind, 0):g}: lower --workers or --cpus-per-worker, or add nodes"
            )
    _expect_whole(share, workers, packed)
    fits, gpus_there = int(total["CPU"] // (cpus * workers)), int(total.get("GPU", 0))
    if share and not packed:
        fits = min(fits, gpus_there * int(1 / share) if share < 1 else int(total["GPU"] // (share * workers)))
    return Resources(cpus, share, min(max_concurrent, fits) if max_concurrent else fits, gpus_there)


def _expect_whole(share: float, workers: int, packed: bool) -> None:
    """NCCL refuses two workers of one trial on a GPU."""
    if packed and not share:
        raise InputError("expected GPUs for --trials-per-gpu auto, the cluster has none: leave it out")
    if workers > 1 and (packed or share % 1):
        got = "trials packed on GPUs" if packed else f"{share:g} GPUs each"
        raise InputError(f"expected whole GPUs for trials of {workers} workers, got {got}: lower --workers to 1")


def _grown(here: Mapping[str, float]) -> dict[str, float]:
    """What the cluster has, or, where it grows, what it may grow to."""
    types = _worker_types()
    most = {kind: sum(count * node.get(kind, 0) for count, node in types) for kind in ("CPU", "GPU")}
    return dict(here) | {kind: max(here.get(kind, 0), number) for kind, number in most.items() if types}


def _worker_types() -> list[tuple[int, dict[str, float]]]:
    """On the head of a cluster that `ray up` made: how many nodes of each type it may start, and what one has. Ray
    itself does not say."""
    try:
        config = yaml.safe_load(BOOTSTRAP.expanduser().read_text())
        workers = {**config["available_node_types"]}
        del workers[config["head_node_type"]]
        return [
            (min(kind.get("max_workers", 0), config["max_workers"]), kind["resources"]) for kind in workers.values()
        ]
    except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []


def _expect_node(cpus: int, share: float, nodes: list[Mapping[str, float]]) -> None:
    """Refuses a worker that no single node can hold, however much they have together: it would be waited for in
    vain."""
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= share for node in nodes):
        wanted = f"{cpus} CPUs" + (f" and {share:g} GPUs" if share else "")
        had = ", ".join(dict.fromkeys(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes))
        raise InputError(f"expected a node with {wanted} for a worker, got nodes with {had}: lower --cpus-per-worker")


def search(planner: Planner, job: Job, images: Dataset, init: bytes, granted: Resources) -> None:
    """Runs the planner's trials until it has no more. KeyboardInterrupt leaves what has not ended as planned."""
    workers = job.sweep.trial.workers
    inputs = Inputs(job, ray.put(images), ray.put(init), granted)
    body = _in_actor if workers == 1 else _in_worker_group
    bundle = _bundle(granted.cpus) if workers == 1 else {"CPU": 0, "node:__internal_head__": 0.001}
    scratch = tempfile.mkdtemp(prefix="sweep-tune-")
    try:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(body, inputs=inputs), bundle),
            tune_config=tune.TuneConfig(
                search_alg=planner,
                scheduler=planner.stopper,
                num_samples=-1,
                max_concurrent_trials=granted.max_concurrent,
                reuse_actors=workers == 1,
                trial_dirname_creator=lambda t: t.trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[planner.listener()],
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _bundle(cpus: int) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """What the actor of a trial of one worker holds: the planner says how much of a GPU."""
    return lambda config: tune.PlacementGroupFactory([{"CPU": cpus, "GPU": config["gpus"]}])


@dataclass(frozen=True)
class Inputs:
    """What every trial gets. The data and the starting model lie in the object store, once: these are references."""

    job: Job
    images: Any
    init: Any
    granted: Resources


def _in_actor(config: dict[str, Any], inputs: Inputs) -> None:
    """A trial of one worker: Ray Train's local mode inside its reused Tune actor, which holds its CPUs and GPU."""

    def body() -> None:
        def report(metrics: dict[str, Any]) -> bool:
            tune.report(metrics)
            return True

        _work(config, inputs, Workers(), report)

    TorchTrainer(body, scaling_config=ScalingConfig(num_workers=0, use_gpu=inputs.granted.gpus > 0)).fit()


def _in_worker_group(config: dict[str, Any], inputs: Inputs) -> None:
    """A trial of several workers: a nested Ray Train group with DDP; this driver itself takes no CPU."""

    def body() -> None:
        def report(metrics: dict[str, Any]) -> bool:
            ray.train.report(metrics)
            return True

        context = ray.train.get_context()
        workers = Workers(context.get_world_rank(), context.get_world_size())
        _work(config, inputs, workers, report)

    job, granted = inputs.job, inputs.granted
    each = {"CPU": float(granted.cpus)} | ({"GPU": granted.gpus} if granted.gpus else {})
    scratch = tempfile.mkdtemp(prefix="sweep-train-")
    try:
        GroupTrainer(
            body,
            scaling_config=ScalingConfig(
                num_workers=job.sweep.trial.workers, use_gpu=granted.gpus > 0, resources_per_worker=each
            ),
            torch_config=TorchConfig(backend="nccl" if granted.gpus else "gloo"),
            run_config=ray.train.RunConfig(
                name="attempt",
                storage_path=scratch,
                callbacks=[TuneReportCallback()],
                failure_config=ray.train.FailureConfig(max_failures=0),  # Tune counts them
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _work(config: dict[str, Any], inputs: Inputs, workers: Workers, report: Callable[[dict[str, Any]], bool]) -> None:
    torch.set_num_threads(inputs.granted.cpus)
    images, init = ray.get([inputs.images, inputs.init])
    outcome = trials.run(inputs.job, Task(**config["task"]), images, init, workers, report)
    if outcome is not None:
        report({"outcome": json.dumps(outcome)})  # as text: Tune takes nested results apart


def remote(function: Callable[..., Any], granted: Resources, *args: Any) -> Any:
    """Starts a function as a Ray task with a worker's share of the cluster; a died process is tried again."""

    def task(*values: Any) -> Any:
        torch.set_num_threads(granted.cpus)
        return function(*values)

    options = {"num_cpus": granted.cpus, "num_gpus": granted.gpus, "max_retries": MAX_FAILURES}
    return ray.remote(task).options(**options).remote(*args)


def wait(started: list[Any]) -> list[Any]:
    """The results of started tasks; what they raised of the user's to mend is raised as it was."""
    try:
        return list(ray.get(started))
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, InputError):
            raise e.cause from None
        raise


def shared(value: Any) -> Any:
    """A reference to a value that many tasks take: it lies in the object store once."""
    return ray.put(value)


def as_completed(started: Mapping[Any, T]) -> Iterator[tuple[T, Any]]:
    """What each started task stands for and its result, in the order in which they end; raises as `wait`."""
    left = list(started)
    while left:
        ended, left = ray.wait(left, num_returns=1)
        yield started[ended[0]], wait(ended)[0]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
