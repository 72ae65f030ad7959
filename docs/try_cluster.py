"""`ray up cluster-onprem.yaml` for real on one machine, by sshd on loopback addresses: `python docs/try_cluster.py` in
a checkout, with a Python that has the project's dependencies. Needs Debian's openssh-server and rsync.

Starts a head and a worker, runs a small sweep on the head, one by `ray job submit` and one through `--address http://`,
and ends all by `ray down`. Homes, keys, ports and Ray's sessions are its own, in a temporary folder. `ray stop`, which
would end every Ray on the machine, is on its nodes a command that ends their own processes only."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[1]
HEAD, WORKER = "127.0.0.2", "127.0.0.3"  # Ray takes 127.0.0.1 for another address of this machine
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
SMALL = ["run", "cas", "--dataset", "digits", "--profile", "smoke", "--trials", "1", "--attacks", "linf,l1,blur"]
PLAIN = ["--log-style=pretty", "--log-color=false"]
SSH_OPTIONS = ["-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
PIP = "--quiet --no-deps --no-build-isolation"
PORTS = "--min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 --disable-usage-stats"
DEADLINE_SECONDS = 900.0
SSHD = """\
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
PasswordAuthentication no
SetEnv HOME={home} RAY_TMPDIR={home}/t
"""
SSH = """\
#!/bin/sh
key=$HOME/ray_bootstrap_key.pem  # ssh itself takes ~ from /etc/passwd
test -e $key && set -- -i $key "$@"
exec /usr/bin/ssh -p {port} "$@"
"""
GUARDED_RAY = """\
import os, pathlib, signal, sys, time
from ray.scripts.scripts import main

def of_this_node():
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command, where = (process / "cmdline").read_bytes(), os.readlink(process / "cwd")
        except OSError:
            continue
        if where.startswith(os.environ["HOME"]) and (b"ray::" in command or b"/ray/" in command):
            yield int(process.name)

def stop():
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in (ours := list(of_this_node())):
            os.kill(pid, number)
        print(f"signal {number} to {len(ours)} processes of {os.environ['HOME']}", flush=True)
        for _ in range(100):
            if not list(of_this_node()):
                return
            time.sleep(0.1)

stop() if sys.argv[1:2] == ["stop"] else main()
"""
UNRELATED = """\
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir={folder!r})
double = ray.remote(lambda x: 2 * x)
while True:
    print(ray.get(double.remote(int(input()))), flush=True)
"""


@dataclass(frozen=True)
class Place:
    """Everything of this try: a temporary folder, the ports, and the environment of who starts the cluster."""

    folder: Path
    ssh: int
    gcs: int
    dashboard: int

    @property
    def storage(self) -> str:
        """What a cluster has on NFS."""
        return str(self.folder / "shared")

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    @cached_property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SWEEP_"))}
        home = self.folder / "laptop"
        return kept | {
            "HOME": str(home),
            "RAY_TMPDIR": str(home / "t"),
            "TMPDIR": str(home / "t"),
            "PATH": f"{self.folder}/bin:{kept['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "TERM": "dumb",
        }

    def run(self, *command: str) -> None:
        """Runs a command as on a laptop, and shows it and what it says."""
        say(f"$ {shlex.join(command)}".replace(shlex.join(RAY), "ray").replace(sys.executable, "python"))
        start = time.monotonic()
        subprocess.run(command, env=self.environment, cwd=CHECKOUT, check=True, stdin=subprocess.DEVNULL)
        say(f"({time.monotonic() - start:.0f} s)")

    def ask(self, what: str) -> list[dict[str, Any]]:
        """Rows of the cluster's state API."""
        token = (self.folder / "laptop/.ray/auth_token").read_text()
        asked = urllib.request.Request(f"{self.api}/api/v0/{what}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            rows: list[dict[str, Any]] = json.load(answer)["data"]["result"]["result"]
        return rows

    def nodes(self) -> dict[str, str]:
        """The address of each node that is alive, by its id."""
        try:
            return {row["node_id"]: row["node_ip"] for row in self.ask("nodes?detail=1") if row["state"] == "ALIVE"}
        except OSError:
            return {}

    def processes(self) -> list[int]:
        """Those that work in this folder, or have it in their environment, which Ray's workers hide."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                told = os.fsencode(os.readlink(process / "cwd")) + (process / "environ").read_bytes()
                if os.fsencode(self.folder) in told:
                    found.append(int(process.name))
        return found


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def wait_until(true: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"gave up waiting until {what}")
        time.sleep(2)
    say(what)


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HEAD, 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def place() -> Iterator[Place]:
    """The folder, with the homes of laptop, head and worker; at the end none of our processes is left."""
    made = Place(Path(tempfile.mkdtemp(prefix="try-")), *free_ports(3))
    try:
        for name in ("laptop", "head", "worker"):
            home = made.folder / name
            (home / "t").mkdir(parents=True)
            (home / ".bash_profile").write_text(". ~/.bashrc\n")
            (home / ".bashrc").write_text(f"export PATH={made.folder}/bin:$PATH; cd\n")
        write_command(made.folder / "bin/ssh", SSH.format(port=made.ssh))
        yield made
    finally:
        for pid in made.processes():
            say(f"killing process {pid}, which was left")
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(made.folder, ignore_errors=True)


def write_command(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def sshd(made: Place, address: str, name: str) -> subprocess.Popen[str]:
    """An sshd of our own on an address, whose sessions have a home of their own."""
    config = made.folder / f"sshd-{name}"
    config.write_text(SSHD.format(address=address, port=made.ssh, folder=made.folder, home=made.folder / name))
    return subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", config], text=True)


def make_keys(made: Place) -> None:
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", made.folder / name], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)


def unrelated(folder: Path) -> subprocess.Popen[str]:
    """A Ray instance of somebody else; it doubles numbers."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": (folder / "log").open("w"), "text": True}
    return subprocess.Popen([sys.executable, "-c", UNRELATED.format(folder=str(folder))], **pipes)


def expect_alive(ray: subprocess.Popen[str], number: int, folder: Path) -> None:
    assert ray.stdin
    assert ray.stdout
    print(number, file=ray.stdin, flush=True)
    if (answer := ray.stdout.readline().strip()) != str(2 * number):
        sys.exit(f"the unrelated Ray instance answered {answer!r} to {number}: {(folder / 'log').read_text()}")
    say(f"an unrelated Ray instance is alive, process {ray.pid}: it doubled {number}")


def derived(made: Place) -> Path:
    """cluster-onprem.yaml with other addresses, keys, ports and folders, without `ray stop`, and with the packages of
    this Python in place of a download."""
    config = yaml.safe_load((CHECKOUT / "cluster-onprem.yaml").read_text())
    config["cluster_name"] = made.folder.name
    config["provider"] |= {"head_ip": HEAD, "worker_ips": [WORKER]}
    config["auth"] = {"ssh_user": getpass.getuser(), "ssh_private_key": str(made.folder / "key")}
    token, venv, _, environment = config["setup_commands"]
    config["setup_commands"] = [
        token,
        f"{venv.replace('python3', sys.executable)} --without-pip",
        f"echo {sysconfig.get_path('purelib')} > $(echo ~/sweep-env/lib/python3*/site-packages)/these.pth",
        f"{sys.executable} -m pip --python ~/sweep-env/bin/python install {PIP} -e ~/adversarial-sweep",
        f"(echo '#!'$HOME/sweep-env/bin/python; cat {made.folder}/ray) > ~/sweep-env/bin/ray",
        "chmod +x ~/sweep-env/bin/ray",
        environment.replace("/shared/sweeps", made.storage),
    ]
    for kind, address in (("head", HEAD), ("worker", WORKER)):
        start = config[f"{kind}_start_ray_commands"][1].replace("6379", str(made.gcs))
        config[f"{kind}_start_ray_commands"] = [f"{start} --node-ip-address={address} {PORTS}"]
    config["head_start_ray_commands"][0] += f" --dashboard-port={made.dashboard}"
    config["worker_start_ray_commands"][0] += " --num-cpus=1"
    path = made.folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False, width=1000))
    return path


def show_where_trials_ran(made: Place) -> None:
    nodes = made.nodes()
    for row in made.ask("actors?detail=1"):
        if row["class_name"] != "JobSupervisor":
            say(f"{row['class_name']} of job {row['job_id']} ran on {nodes.get(row['node_id'], row['node_id'])}")


def try_all(made: Place) -> None:
    """From `ray up` to `ray down`."""
    config = str(derived(made))
    made.run(*RAY, "get-auth-token", "--generate")
    made.run(*RAY, "up", "--yes", "--no-config-cache", *PLAIN, config)
    try:
        wait_until(
            lambda: sorted(made.nodes().values()) == [HEAD, WORKER], f"head {HEAD} and worker {WORKER} are alive"
        )
        made.run(*RAY, "exec", *PLAIN, config, "ray status")
        made.run(*RAY, "exec", *PLAIN, config, shlex.join(["python", "-m", "sweep", *SMALL, "--id", "on-the-head"]))
        job = ["python", "-m", "sweep", *SMALL, "--id", "by-ray-job-submit"]
        made.run("env", "RAY_AUTH_MODE=token", *RAY, "job", "submit", "--address", made.api, "--", *job)
        storage = ["--storage", made.storage]
        made.run(sys.executable, "-m", "sweep", *SMALL, "--id", "from-a-laptop", "--address", made.api, *storage)
        show_where_trials_ran(made)
        made.run(sys.executable, "-m", "sweep", "ls", *storage)
    finally:
        made.run(*RAY, "down", "--yes", *PLAIN, config)
        made.run("ssh", *SSH_OPTIONS, "-i", f"{made.folder}/key", WORKER, "~/sweep-env/bin/ray stop")
    wait_until(lambda: not made.processes(), "nothing of the cluster is left", 180)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        tempfile.TemporaryDirectory(prefix="else-", ignore_cleanup_errors=True) as other,
        place() as made,
        ended(unrelated(folder := Path(other))) as ray,
    ):
        expect_alive(ray, 21, folder)
        make_keys(made)
        (made.folder / "ray").write_text(GUARDED_RAY)
        with ended(sshd(made, HEAD, "head")), ended(sshd(made, WORKER, "worker")):
            try_all(made)
        expect_alive(ray, 22, folder)


if __name__ == "__main__":
    main()
