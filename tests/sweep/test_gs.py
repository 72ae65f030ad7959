"""What Google's store adds to the contract in test_storage: what may go wrong is one line."""

from __future__ import annotations

import time

import pytest
from object_stores import Server

from attacks.errors import InputError
from sweep.storage import Storage


def refusal(uri: str) -> str:
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        Storage(uri).folders()
    assert time.monotonic() - start < 60
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bucket_that_is_not_there(gcs: Server) -> None:
    uri = gcs.gs("nosuch")
    told = r"cannot \w+ gs://nosuch/.*: there is no bucket 'nosuch': make it, or name another"
    with pytest.raises(InputError, match=told):
        Storage(uri).write("x", b"")
    with pytest.raises(InputError, match=told):
        Storage(uri).folders()


def test_a_server_that_is_not_there() -> None:
    told = refusal("gs://anonymous@sweeps/x?scheme=http&endpoint_override=127.0.0.1:1")
    assert "the server does not answer (Could not connect to server): check the network" in told


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that would know a role is asked in vain: it is not Google's."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/none")
    monkeypatch.setenv("HOME", "/none")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    told = refusal("gs://sweeps/x")
    assert "no credentials that Google takes: set GOOGLE_APPLICATION_CREDENTIALS" in told
