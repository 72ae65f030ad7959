"""A cluster that asks for a token: as a job through its job server, and by its address."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader, Config
from shells import Shell
from sweeps import DEADLINE_SECONDS, Sweeps, wait_until

from attacks.errors import InputError
from sweep import access, engine, jobs

TOKEN = "0123456789abcdef" * 2
ROOT = Path(__file__).parents[2]
START = "ray.scripts.scripts start --head --block --num-cpus=1 --disable-usage-stats --dashboard-host=127.0.0.1"
ANY_PORT = "--dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0"


@dataclass(frozen=True)
class Head:
    """A head on loopback that asks for TOKEN, at an address and with a job server."""

    address: str
    server: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    port, dashboard = free_ports()
    folder = tempfile.mkdtemp(prefix="head-")  # short, for Ray's sockets
    own = {"HOME": folder, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    own |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    own |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on loopback only
    command = [sys.executable, "-m", *START.split(), *ANY_PORT.split()]
    command += [f"--port={port}", f"--dashboard-port={dashboard}"]
    with open(f"{folder}/log", "wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
    try:
        wait_until(lambda: listens(port) and listens(dashboard), process)
        yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", own)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


Reader = Callable[..., None]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Sets what Ray finds on this machine; nothing of a token but what is given."""

    def read() -> None:
        AuthenticationTokenLoader.instance().reset_cache()
        Config.initialize("")

    def put(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        read()

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)  # as the head: 127.0.0.1 is itself
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what the test leaves is undone
        monkeypatch.delenv(name)
    put()
    yield put
    monkeypatch.undo()
    read()


def told(head: Head) -> set[str]:
    """What is said by the address and by the job server, each without its own name."""
    found = set()
    for one, connect in ((head.address, access.expect_reachable), (head.server, jobs.connected)):
        with pytest.raises(InputError) as error:
            connect(one)
        found.add(str(error.value).replace(one, "A"))
    return found


REMEDY = "copy it from there into ~/.ray/auth_token, or set $RAY_AUTH_TOKEN or $RAY_AUTH_TOKEN_PATH"


def test_no_token(head: Head, here: Reader) -> None:
    assert told(head) == {f"the Ray cluster at A asks for its token, and there is none here: {REMEDY}"}


def test_a_wrong_token(head: Head, here: Reader, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(TOKEN[::-1])
    here()
    assert told(head) == {f"the Ray cluster at A asks for its token, which ~/.ray/auth_token is not: {REMEDY}"}
    here(RAY_AUTH_TOKEN="f" * 32)
    assert told(head) == {f"the Ray cluster at A asks for its token, which $RAY_AUTH_TOKEN is not: {REMEDY}"}


def test_a_token_that_is_not_to_be_sent(head: Head, here: Reader) -> None:
    here(RAY_AUTH_TOKEN=TOKEN, RAY_AUTH_MODE="disabled")
    assert told(head) == {"the Ray cluster at A asks for a token: unset $RAY_AUTH_MODE, which is disabled"}


def test_a_token_that_cannot_be_read(here: Reader) -> None:
    here(RAY_AUTH_TOKEN_PATH="/nowhere/token")
    with pytest.raises(InputError, match=r"^cannot read Ray's token: RAY_AUTH_TOKEN_PATH is set.*: /nowhere/token$"):
        access.use_token()


def test_the_token_is_sent_unasked(head: Head, here: Reader, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    here(RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert jobs.connected(head.server).list_jobs() == []
    with engine.cluster(head.address, verbose=False):
        assert ray.cluster_resources()["CPU"] == 1


def test_nobody_there(head: Head, here: Reader) -> None:
    port = free_ports()[0]
    with pytest.raises(InputError, match=f"cannot reach a Ray cluster at 127.0.0.1:{port}: .*refused"):
        access.expect_reachable(f"127.0.0.1:{port}")
    with pytest.raises(InputError, match=f"cannot reach a Ray job server at http://127.0.0.1:{port}: "):
        jobs.connected(f"http://127.0.0.1:{port}")
    with pytest.raises(InputError, match=r"no Ray cluster answers there \(UNAVAILABLE\)"):
        access.expect_reachable(head.server.removeprefix("http://"))
    with pytest.raises(
        InputError, match=r"got that of a job server, https://a\.b, to which only run, resume and extend"
    ):
        access.expect_reachable("https://a.b")


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # in Ray's client
def test_a_sweep_as_a_job(head: Head, here: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its space travels; Ctrl-C leaves it running; its log and its exit code come back."""
    sweeps = Sweeps(tmp_path, environment=head.environment | {"HOME": str(tmp_path)})
    del sweeps.environment["RAY_AUTH_MODE"]
    options = ["--trials", "1", "--id", "far", "--storage", str(tmp_path / "results")]
    try:
        submitted = sweeps.start("run", sweeps.space(epochs=1), f"--address={head.server}", *options)
        out, log = tmp_path / "out", tmp_path / "log"
        wait_until(lambda: "\nfar\n" in out.read_text(), submitted)
        os.kill(submitted.pid, signal.SIGINT)
        assert submitted.wait(DEADLINE_SECONDS) == 130
    finally:
        sweeps.end()
    begun, goes_on, end = log.read_text().splitlines()[-3:]
    job = begun.split()[1]
    assert goes_on.endswith(f"RAY_AUTH_MODE=token ray job logs --follow --address {head.server} {job}")
    assert end.endswith(f"RAY_AUTH_MODE=token ray job stop --address {head.server} {job}")
    here(RAY_AUTH_TOKEN=TOKEN)
    client = jobs.connected(head.server)
    follower = jobs._Log(client, job)
    assert follower.follow() == 0
    whole = capsys.readouterr().out
    assert "go on:" in whole
    follower.shown = 100  # as after a connection that broke there
    assert follower.follow() == 0
    assert capsys.readouterr().out == whole[100:]
    assert sweeps.store("far").trials().column("state").to_pylist() == ["COMPLETE"]
    assert jobs.run(head.server, ["resume", "none", "--address", head.server], str(tmp_path / "results"), []) == 2
    assert "error: unknown sweep 'none'" in capsys.readouterr().out


def test_a_storage_that_both_see(sweep: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the server is asked for."""
    message = "expected a storage that the cluster sees too, got {}: give --storage as a URI, or as the whole path of a"
    message += " folder that all its nodes have"
    here = ("--address", "http://127.0.0.1:1")
    assert sweep.refused("run", "cas", *here, "--storage", "results") == message.format("results")
    monkeypatch.setenv("RAY_ADDRESS", here[1])
    for verb in (("resume", "s"), ("extend", "s", "--trials", "1")):
        assert sweep.refused(*verb) == message.format(f"the path {sweep.results}")


def test_what_is_submitted(tmp_path: Path) -> None:
    kept = ["run", "a.yaml", "--set", "x=a.yaml", "-q"]
    given = [*kept[:2], "--address", "http://a", *kept[2:], "--address=http://b"]
    assert jobs._told(given, "s3://b") == [*kept, "--storage", "s3://b"]
    assert jobs._told([*given, "--storage=/x"], "s3://b") == [*kept, "--storage=/x"]
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(name)
    paths = [str(tmp_path / name) for name in ("a.yaml", "b.yaml")]
    (folder := tmp_path / "job").mkdir()
    sent = jobs._packed(folder, ["run", paths[0], f"--budgets={paths[1]}", "-q"], paths)
    assert sent == ["run", "0/a.yaml", "--budgets=1/b.yaml", "-q"]
    assert [(folder / name).read_text() for name in ("0/a.yaml", "1/b.yaml")] == ["a.yaml", "b.yaml"]
