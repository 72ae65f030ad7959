"""Access to a Ray cluster that runs already: the token that it may ask for, and refusals in seconds where Ray takes
minutes."""

from __future__ import annotations

import os
import socket

import grpc
from ray._private.authentication import authentication_token_setup as setup
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import resolve_ip_for_localhost
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import AuthenticationError

from attacks.errors import InputError

REACH_SECONDS = 10.0
"""How long an address may take to answer."""
TOKEN_FILE = "~/.ray/auth_token"
HTTP = ("http://", "https://")


def is_job_server(address: str | None) -> bool:
    """Whether an address is that of a job server, to which a sweep is submitted, and not of a cluster to connect to."""
    return (address or "").startswith(HTTP)


def use_token() -> None:
    """Sends the token that is here with every request from now on, unless $RAY_AUTH_MODE is set: Ray does so for
    `auto` only. A cluster that asks for no token takes a client that sends one."""
    if setup.AUTH_MODE_ENV_VAR not in os.environ and _has_token():
        setup._enable_token_auth()


def _has_token() -> bool:
    try:
        return bool(setup.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))
    except AuthenticationError as e:  # what the environment names is not there
        raise InputError(f"cannot read Ray's token: {str(e).partition('. ')[0]}") from e


def refused(address: str) -> InputError:
    """What to say where a cluster asks for a token and did not get its own."""
    mode = os.environ.get(setup.AUTH_MODE_ENV_VAR, "token")
    if mode.lower() != "token":
        return InputError(f"the Ray cluster at {address} asks for a token: unset $RAY_AUTH_MODE, which is {mode}")
    wrong = f"which {_source()} is not" if _has_token() else "and there is none here"
    return InputError(
        f"the Ray cluster at {address} asks for its token, {wrong}: copy it from there into {TOKEN_FILE}, or set "
        "$RAY_AUTH_TOKEN or $RAY_AUTH_TOKEN_PATH"
    )


def _source() -> str:
    """Where Ray has its token from."""
    return next((f"${name}" for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)), TOKEN_FILE)


def expect_reachable(address: str | None) -> None:
    """Refuses an address HOST:PORT that no Ray cluster answers on, or whose cluster wants another token: Ray would try
    for minutes. Other forms, such as `auto`, are Ray's."""
    if address is None:
        return
    if is_job_server(address):
        raise InputError(
            f"expected the address of a cluster, such as HOST:6379, got that of a job server, {address}, to which only "
            "run, resume and extend go"
        )
    use_token()
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdigit():
        return
    taken = resolve_ip_for_localhost(host or "localhost")  # this machine's own, for 127.0.0.1
    try:
        socket.create_connection((taken, int(port)), timeout=REACH_SECONDS).close()
        NodeInfoGcsServiceStub(init_grpc_channel(f"{taken}:{port}")).CheckAlive(
            CheckAliveRequest(), timeout=REACH_SECONDS
        )
    except (OSError, OverflowError) as e:
        raise _unreachable(address, f"{e}{f' at {taken}, which Ray takes for it' if taken != host else ''}") from e
    except grpc.RpcError as e:
        if e.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise refused(address) from None
        raise _unreachable(address, f"no Ray cluster answers there ({e.code().name})") from e


def _unreachable(address: str, why: str) -> InputError:
    return InputError(
        f"cannot reach a Ray cluster at {address}: {why}; check --address and $RAY_ADDRESS, or leave both out"
    )
