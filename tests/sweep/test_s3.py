"""What S3 adds to the contracts of test_storage, test_store and test_lease: sizes, crowds, and what may be told."""

from __future__ import annotations

import http.server
import multiprocessing
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from object_stores import BUCKET, SECRET, Server, write_some
from shells import Shell, verdict
from sweeps import planned

from attacks.errors import InputError
from sweep import garbage, object_store, status
from sweep.compaction import compact
from sweep.storage import Storage
from sweep.store import Store, sweep_ids
from trainers import checkpoint

SPAWN = multiprocessing.get_context("spawn")
THREADS = 8


@pytest.fixture
def storage(s3: Server) -> Storage:
    return Storage(s3.s3())


@pytest.fixture
def finished(storage: Storage) -> Store:
    store = Store(storage, "s1")
    store.create({"trials": 3, "fingerprint": "f", "spec": {"alternatives": []}})
    for number in range(3):
        store.write_plan(number, planned(f"k{number}"))
        store.write_results(f"k{number}", "val-live", [verdict(number, "sat", "val", a) for a in ("clean", "linf")])
        store.folder.write(f"checkpoints/k{number}/model.safetensors", b"weights")
        store.commit_trial({"number": number, "key": f"k{number}", "state": "COMPLETE", "value": number / 4})
    return store


def test_many_writers_lose_nothing_and_never_mix(storage: Storage) -> None:
    writers = [SPAWN.Process(target=write_some, args=(storage.uri, writer, 8)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert storage.names("own") == sorted(f"own/{writer}-{i}" for writer in range(3) for i in range(40))
    for name in storage.names("shared"):
        data = storage.read(name)
        assert (len(data), len(set(data))) == (200_000, 1)
    assert len(storage.names("shared")) == 8


def test_what_was_written_is_listed_at_once_and_what_was_deleted_is_not(storage: Storage) -> None:
    def follow(i: int) -> None:
        name = f"{i}/x"
        storage.write(name, b"x")
        assert storage.names(str(i)) == [name]
        storage.delete(name)
        assert storage.names(str(i)) == []
        assert not storage.exists(name)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(follow, range(40)))


def test_listings_of_more_than_a_page(storage: Storage) -> None:
    names = sorted(f"{i:04d}/x" for i in range(1010))
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: storage.write(name, b"x"), names))
    assert storage.names() == names
    assert storage.folders() == [name[:4] for name in names]
    storage.write("0000/y", b"")
    storage.delete("0000")
    assert storage.names() == names[1:]


def test_large_files_go_in_parts(storage: Storage) -> None:
    data = np.random.default_rng(0).bytes(25 << 20)
    storage.write("large", data)
    assert storage.read("large") == data
    with storage.open("large") as file:
        assert file.read_at(1000, 20 << 20) == data[20 << 20 :][:1000]
    storage.write("large", data[: 11 << 20])
    assert storage.read("large") == data[: 11 << 20]


def test_a_sweep_is_compacted_and_collected(finished: Store) -> None:
    before = finished.results().to_pylist()
    compact(finished)
    assert [name for name in finished.files("results") if name.startswith("compact-")]
    assert sorted(finished.results().to_pylist(), key=str) == sorted(before, key=str)
    assert garbage.collect(finished, keep=1) == ["k0", "k1"]
    assert finished.folder.names("checkpoints") == ["checkpoints/k2/model.safetensors"]
    assert sweep_ids(finished.storage) == ["s1"]


def test_checkpoints_that_verify_are_found(storage: Storage) -> None:
    files = storage.child("checkpoints/k")
    for epoch in (1, 2, 3):
        checkpoint.write(files, epoch, {"w": torch.full((1000, 1000), float(epoch))}, {"epoch": epoch})
    assert {name.split("/")[0] for name in files.names()} == {"2", "3"}
    files.write("3/weights.safetensors", files.read("3/weights.safetensors")[:-1])
    found = checkpoint.newest(files)
    assert found is not None
    assert (found[1], float(found[0]["w"][0, 0])) == ({"epoch": 2}, 2.0)
    checkpoint.clear(files)
    assert files.names() == []


# what may be told


def test_what_to_type_next_leads_back_without_the_secret(finished: Store, s3: Server) -> None:
    typed = finished.storage.typed()
    assert typed == f"{finished.storage.where()}?{s3.options}"
    said = [status.command("resume", finished), repr(finished), str(finished.storage.where("x"))]
    said += [finished.folder.read(name).decode(errors="replace") for name in finished.folder.names()]
    assert not [text for text in said if SECRET in text or "test%2B" in text]


def test_options_that_may_be_secret_are_not_typed() -> None:
    uri = "abfs://container@account.dfs.core.windows.net/x?client_secret=hidden&tenant_id=t&region=here"
    assert object_store.typed(uri) == "abfs://account.dfs.core.windows.net/x?region=here"
    assert object_store.typed("s3://k:s@b/x?region=eu-west-1") == "s3://b/x?region=eu-west-1"


@pytest.mark.parametrize("secret", ["ab/cd", "a%zcd"])
def test_a_secret_that_breaks_the_uri_is_not_repeated(secret: str) -> None:
    with pytest.raises(InputError, match="percent-encoded") as caught:
        Storage(f"s3://key:{secret}@bucket/x")
    assert "cd" not in str(caught.value).replace("percent-encoded", "")


def test_other_faults_of_a_uri_do_not_repeat_it() -> None:
    with pytest.raises(InputError, match="Unexpected query parameter") as caught:
        Storage("s3://key:hidden@bucket/x?nonsense=1")
    assert "hidden" not in str(caught.value)


def test_the_environment_is_enough(s3: Server, sweep: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{BUCKET}/environment"
    Store(Storage(uri), "s1").create({"trials": 1, "fingerprint": "f", "spec": {}})
    answer = sweep("ls", "--storage", uri, "--format", "csv")
    assert answer.code == 0
    assert "s1" in answer.out


# one line each


NOBODY = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONFIG_FILE": "/none"}
WRONG: dict[str, tuple[Callable[[Server], str], str]] = {
    "no credentials": (lambda s3: s3.s3(who=""), r"access denied \(no credentials were found.*AWS_ACCESS_KEY_ID"),
    "unknown key": (lambda s3: s3.s3(who="nobody:secret@"), "does not know the access key: set AWS_ACCESS_KEY_ID"),
    "wrong secret": (lambda s3: s3.s3(who="test-key:hidden@"), "is not the access key's: set AWS_SECRET_ACCESS_KEY"),
    "no bucket": (lambda s3: s3.s3("nosuch"), "there is no bucket 'nosuch': make it, or name another by --storage"),
    "no server": (
        lambda s3: s3.s3().replace(f":{s3.port}", ":1"),
        r"does not answer \(.*connect to server\).*endpoint",
    ),
    "not https": (lambda s3: s3.s3().replace("=http&", "=https&"), r"does not answer \(TLS.*scheme= in the URI"),
}


@pytest.fixture
def nobody(sweep: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """The command line on a machine without credentials."""
    for name, value in NOBODY.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    return sweep


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_is_one_line(s3: Server, nobody: Shell, fault: str) -> None:
    uri, expected = WRONG[fault]
    start = time.monotonic()
    told = nobody.refused("ls", "--storage", uri(s3))
    assert time.monotonic() - start < 60
    assert re.match(rf"cannot list s3://\w+/\w+: .*{expected}", told), told
    assert "\n" not in told
    assert "hidden" not in told


VERBS = [["run", "cas", "--profile", "smoke"], ["resume", "s1"], ["status", "s1"], ["query", "select 1", "--id", "s1"]]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_verb_goes_on_where_it_may_not(s3: Server, nobody: Shell, verb: list[str]) -> None:
    told = nobody.refused(*verb, "--storage", s3.s3(who="test-key:hidden@"))
    assert re.match(r"cannot \w+ s3://sweeps/\w+.*: (access denied \(with the credentials in|the secret key is)", told)
    assert "hidden" not in told
    told = nobody.refused(*verb, "--storage", s3.s3("nosuch"))
    assert re.match(r"cannot \w+ s3://nosuch/\w+.*: there is no bucket 'nosuch'", told), told


def test_one_who_may_only_read_reads(finished: Store, s3: Server, nobody: Shell) -> None:
    mine = finished.storage.typed().replace("://", "://reader:readers-secret@")
    answer = nobody("ls", "--storage", mine, "--format", "csv")
    assert (answer.code, "s1" in answer.out) == (0, True)
    with pytest.raises(InputError, match=r"cannot write s3://.*/x: access denied \(with the credentials in the URI\)"):
        Storage(mine).write("x", b"")


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(InputError, match=r"does not answer .*too slow"):
            Storage(f"s3://k:s@b/x?scheme=http&endpoint_override=127.0.0.1:{silent.getsockname()[1]}").folders()
        assert time.monotonic() - start < 60


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Answers as Amazon does where the bucket is of another region; SeaweedFS knows none."""

    def do_GET(self) -> None:
        self.send_response(301)
        self.send_header("x-amz-bucket-region", "eu-west-3")
        self.end_headers()
        self.wfile.write(b"<Error><Code>PermanentRedirect</Code><Message>Use the other endpoint.</Message></Error>")

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_a_bucket_of_another_region_is_named() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"s3://k:s@b/x?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{server.server_port}"
        with pytest.raises(InputError, match=r"bucket is in another region.*: set region= in the URI"):
            Storage(uri).folders()
        with pytest.raises(InputError, match=r"another region \(located in 'eu-west-3'\): set region="):
            Storage(uri).exists("x")
        server.shutdown()
