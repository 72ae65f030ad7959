"""One Ray node on loopback, as a machine of a cluster would run it: `python node.py CPUS FOLDER [ADDRESS]`; the head
has no address. It prints its cluster's address and its raylet's process id, and lasts until its standard input ends, or
SIGTERM, which it takes as a notice of pre-emption, as `ray start --block` does: it drains for a while and ends."""

from __future__ import annotations

import json
import sys

from ray._private import ray_constants
from ray._private.node import Node
from ray._private.parameter import RayParams


def main(cpus: str, folder: str, address: str | None = None) -> None:
    node = Node(
        RayParams(
            num_cpus=int(cpus),
            num_gpus=0,
            gcs_address=address,
            temp_dir=folder,
            object_store_memory=150 * 2**20,
            include_dashboard=False,
            min_worker_port=0,
            max_worker_port=0,
            include_log_monitor=False,
        ),
        head=address is None,
        shutdown_at_exit=True,
        spawn_reaper=True,
    )
    raylet = node.all_processes[ray_constants.PROCESS_TYPE_RAYLET][0].process.pid
    print(json.dumps({"address": node.gcs_address, "raylet": raylet}), flush=True)
    sys.stdin.read()


main(*sys.argv[1:])
