"""The Ray cluster: whether it can be reached or started, who may use it, and whether its nodes see what we see."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks.errors import InputError
from sweep.doctor.rows import Row, failed, finding, row
from sweep.doctor.stored import agreement, skew
from sweep.storage import Storage

NODE_SECONDS = 120


@dataclass(frozen=True)
class Seen:
    """What a node found: its clock, its GPUs by torch, and why it cannot use the storage."""

    host: str
    time: float
    gpus: int
    fault: str


def check(address: str | None, storage: Storage) -> list[Row]:
    from sweep import engine, jobs

    rows, start = [auth(address, os.environ)], time.perf_counter()
    if address and address.startswith(("http://", "https://")):
        return [*rows, finding("ray job server", lambda: f"{address}: Ray {jobs.connected(address).get_version()}")]
    try:
        with engine.cluster(address, verbose=False):
            rows.append(row("ray cluster", "ok", _resources(address, time.perf_counter() - start)))
            rows += _nodes(storage) if address else []
    except Exception as e:  # Ray raises bare ones, too
        rows.append(failed("ray cluster", e))
    return rows


def _resources(address: str | None, seconds: float) -> str:
    import ray

    total = ray.cluster_resources()
    where = f"reached {address}" if address else "started here"
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    return f"{where} in {seconds:.1f} s: {nodes} nodes, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"


def auth(address: str | None, environment: Mapping[str, str]) -> Row:
    """Whether whoever reaches the cluster must show a token. One that is here is shown, if no mode is set."""
    mode, token = environment.get("RAY_AUTH_MODE", ""), _token(environment)
    found = f"RAY_AUTH_MODE={mode or 'unset'}, {f'token in {token}' if token else 'no token'}"
    if mode == "token" and not token:
        return row("ray auth", "FAILED", found, "copy the cluster's token to ~/.ray/auth_token, or set RAY_AUTH_TOKEN")
    if address and (mode == "disabled" or not token):
        return row(
            "ray auth",
            "warn",
            f"{found}: open to all who reach {address}",
            "`ray get-auth-token --generate`, copied to all nodes; RAY_AUTH_MODE unset",
        )
    return row("ray auth", "ok", found)


def _token(environment: Mapping[str, str]) -> str:
    """Where Ray finds a token, "" where it does not."""
    if environment.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return str(path) if path.exists() else ""


def _nodes(storage: Storage) -> list[Row]:
    """What each node sees of a file that was just written."""
    name, told = f"doctor-{uuid.uuid4().hex[:8]}", uuid.uuid4().bytes
    try:
        storage.write(name, told)
        seen = _asked(storage, name, told)
    finally:
        storage.delete(name)
    clocks = agreement("clocks of the nodes", [(one.host, off) for one, off in seen])
    return [clocks, storage_on([one for one, _ in seen]), row("gpus of the nodes", "ok", _gpus(seen))]


def storage_on(nodes: list[Seen]) -> Row:
    faults = [f"{one.host}: {one.fault}" for one in nodes if one.fault]
    if not faults:
        return row("storage on the nodes", "ok", f"read on {len(nodes)} of {len(nodes)}")
    remedy = "give the nodes the credentials before `ray start`; a local path must be one that all nodes share"
    return row("storage on the nodes", "FAILED", "; ".join(faults), remedy)


def _gpus(seen: list[tuple[Seen, float]]) -> str:
    return ", ".join(f"{one.host}: {one.gpus}" for one, _ in seen)


def _asked(storage: Storage, name: str, told: bytes) -> list[tuple[Seen, float]]:
    """What each living node saw, and how far its clock is off: asked twice, as the first answer waits for a process."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    found = []
    for node in (node for node in ray.nodes() if node["Alive"]):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(look).options(num_cpus=0, scheduling_strategy=there)
        ray.get(task.remote(storage, name, told), timeout=NODE_SECONDS)
        before = time.time()
        seen: Any = ray.get(task.remote(storage, name, told), timeout=NODE_SECONDS)
        found.append((seen, skew(seen.time, before, time.time())))
    return found


def look(storage: Storage, name: str, told: bytes) -> Seen:
    import torch

    try:
        fault = "" if storage.read(name) == told else f"{storage.where(name)} holds something else"
    except FileNotFoundError:
        fault = f"{storage.where(name)} is not there"
    except InputError as e:
        fault = str(e)
    return Seen(socket.gethostname(), time.time(), torch.cuda.device_count(), fault)
