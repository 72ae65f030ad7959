"""A Ray cluster of several nodes on this machine, each a process tree of its own, to be killed at will."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NOTICE_SECONDS = 5
RAY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(NOTICE_SECONDS),
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_worker_niceness": "0",
}
"""On loopback only (see sweep.engine), without tokens; how long a notice is; how long a head may be away (Ray's default
is 60 s); workers as important as whatever else the machine does (Ray's default is 15)."""
TRIES = 4
"""Ray gives a node 30 s to start, which a busy machine may not have."""
HEAD_CPUS, WORKER_CPUS = 0, 1


@dataclass
class Machine:
    """A node of the cluster: the process of node.py and all that it started."""

    process: subprocess.Popen[str]
    address: str
    raylet: int

    def family(self) -> list[psutil.Process]:
        try:
            return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def named(self, start: str) -> list[psutil.Process]:
        """Its processes whose command line begins so, the youngest last."""
        return sorted((one for one in self.family() if _command(one).startswith(start)), key=psutil.Process.create_time)

    def gcs(self) -> psutil.Process:
        return next(one for one in self.family() if "gcs_server" in _command(one).split(" ")[0])

    def kill(self) -> None:
        """As when the power goes: every process at once."""
        family = self.family()
        for one in family:
            _kill(one)
        psutil.wait_procs(family, timeout=10)
        self.process.wait()


@dataclass
class Cluster:
    """A head, where drivers live, and two worker nodes of one CPU each."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="fr-")))
    machines: list[Machine] = field(default_factory=list)
    made: int = 0

    @property
    def address(self) -> str:
        return self.machines[0].address

    @property
    def workers(self) -> list[Machine]:
        return self.machines[1:]

    def start(self) -> None:
        self._node(HEAD_CPUS)
        for _ in range(2):
            self._node(WORKER_CPUS, self.address)

    def restart(self) -> None:
        """Another cluster in the place of this one."""
        self._end_machines()
        self.start()

    def replace(self, machine: Machine) -> None:
        """A new node for one that is gone."""
        machine.kill()
        self.machines.remove(machine)
        self._node(WORKER_CPUS, self.address)

    def named(self, start: str) -> list[psutil.Process]:
        return [one for machine in self.machines for one in machine.named(start)]

    def busy(self) -> str:
        """What is not free: placement groups that are not removed, and CPUs in use; empty where all is."""
        from ray._private.state import GlobalState
        from ray._raylet import GcsClientOptions

        state = GlobalState()
        options = {"allow_cluster_id_nil": True, "fetch_cluster_id_if_nil": False}
        state._initialize_global_state(GcsClientOptions.create(self.address, None, **options))
        groups = [one["state"] for one in state.placement_group_table().values() if one["state"] != "REMOVED"]
        whole, free = state.cluster_resources().get("CPU", 0), state.available_resources().get("CPU", 0)
        return f"{len(groups)} placement groups {groups}, {free} of {whole} CPUs free" if groups or free < whole else ""

    def end(self) -> None:
        self._end_machines()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_machines(self) -> None:
        for machine in reversed(self.machines):
            machine.kill()
        self.machines.clear()

    def _node(self, cpus: int, *address: str) -> None:
        for _ in range(TRIES):
            self.made += 1
            log = self.folder / f"{self.made}.log"
            process = _begin([str(cpus), str(self.folder / f"{self.made}"), *address], log)
            assert process.stdout is not None
            if line := process.stdout.readline():
                said = json.loads(line)
                self.machines.append(Machine(process, said["address"], said["raylet"]))
                return
            process.wait()
        raise RuntimeError(f"a node does not start: {log.read_text()[-2000:]}")


def _begin(arguments: list[str], log: Path) -> subprocess.Popen[str]:
    """node.py, in a session of its own; it ends with this process, whose pipe it reads."""
    command = [sys.executable, str(Path(__file__).with_name("node.py")), *arguments]
    with log.open("w") as said:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said}
        return subprocess.Popen(command, **pipes, env=os.environ | RAY, text=True, start_new_session=True)


def gone(processes: list[psutil.Process], seconds: float = 300) -> None:
    """Waits until they are."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not alive, f"still there after {seconds} s: {alive}"


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()
