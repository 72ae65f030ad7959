"""Sweeps as jobs of a cluster: what `--address http://HOST:8265` does, from any machine that reaches its job server."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from attacks.errors import InputError
from sweep import access

INTERRUPTED, TERMINATED, FAILED = 130, 143, 1
LOST_SECONDS, RETRY_SECONDS = 60.0, 1.0
"""How long a job server may be away while its job is followed, and how often it is asked."""

CHATTY = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
"""Ray's modules that tell of every upload and connection."""


def run(address: str, arguments: Sequence[str], storage: str, files: Sequence[str]) -> int:
    """Submits `sweep` with these arguments, follows its log, both streams in one, on stdout, and returns its exit code.
    The files among the arguments travel with it. Ctrl-C ends the following, not the job."""
    for name in CHATTY:
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    client = connected(address)
    folder = Path(tempfile.mkdtemp(prefix="sweep-job-"))
    try:
        command = _packed(folder, _told(arguments, storage), files)
        environment: dict[str, Any] = {"env_vars": {"SWEEP_STORAGE": ""}}  # so that it is told with every command
        environment |= {"working_dir": str(folder)} if files else {}
        job = client.submit_job(entrypoint=shlex.join(["python", "-m", "sweep", *command]), runtime_env=environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    auth = "RAY_AUTH_MODE=token " if os.environ.get("RAY_AUTH_MODE") == "token" else ""
    print(f"job {job} at {address}", file=sys.stderr, flush=True)
    try:
        return _Log(client, job).follow()
    except KeyboardInterrupt:
        ray_job = f"{auth}ray job {{}} --address {address} {job}"
        print(f"the job goes on; follow it again: {ray_job.format('logs --follow')}", file=sys.stderr)
        print(f"end it, resumable: {ray_job.format('stop')}", file=sys.stderr)
        return INTERRUPTED


def connected(address: str) -> JobSubmissionClient:
    """A client of the job server, with the token that is here."""
    access.use_token()
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers it, and $RAY_ADDRESS, to the argument
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise access.refused(address) from None
    except (requests.RequestException, ConnectionError, RuntimeError, ValueError) as e:
        raise InputError(f"cannot reach a Ray job server at {address}: {str(e).splitlines()[0]}") from e


def _told(arguments: Sequence[str], storage: str) -> list[str]:
    """The arguments without --address, and with a storage."""
    kept, rest = [], iter(arguments)
    for argument in rest:
        if argument == "--address":
            next(rest, None)
        elif not argument.startswith("--address="):
            kept.append(argument)
    given = any(argument.partition("=")[0] == "--storage" for argument in kept)
    return kept if given else [*kept, "--storage", storage]


def _packed(folder: Path, arguments: Sequence[str], files: Sequence[str]) -> list[str]:
    """The arguments with each file's path as it will be beside the job; copies of the files in `folder`."""
    there = {}
    for number, path in enumerate(files):
        there[path] = f"{number}/{Path(path).name}"
        (folder / str(number)).mkdir()
        shutil.copyfile(Path(path).expanduser(), folder / there[path])
    return [_moved(argument, there) for argument in arguments]


def _moved(argument: str, there: dict[str, str]) -> str:
    option, equals, value = argument.partition("=")
    if option.startswith("--") and value in there:
        return f"{option}{equals}{there[value]}"
    return there.get(argument, argument)


class _Log:
    """The log of a job as far as it has been shown, so that a lost connection is taken up where it broke."""

    def __init__(self, client: JobSubmissionClient, job: str) -> None:
        self.client, self.job, self.shown = client, job, 0

    def follow(self) -> int:
        """Shows the log to its end; the job's exit code."""
        while True:
            whole = False
            with suppress(RuntimeError, OSError, aiohttp.ClientError):
                asyncio.run(self._tail())
                whole = True
            info = self._info()
            if whole and info.status.is_terminal():
                return _code(info)
            time.sleep(RETRY_SECONDS)

    async def _tail(self) -> None:
        begun = 0
        async for text in self.client.tail_job_logs(self.job):
            print(text[max(0, self.shown - begun) :], end="", flush=True)
            begun += len(text)
            self.shown = max(self.shown, begun)

    def _info(self) -> JobDetails:
        deadline = time.monotonic() + LOST_SECONDS
        while True:
            try:
                return self.client.get_job_info(self.job)
            except (requests.RequestException, RuntimeError) as e:
                if time.monotonic() > deadline:
                    raise ConnectionError(f"the job server does not answer any more; job {self.job} may go on") from e
                time.sleep(RETRY_SECONDS)


def _code(info: JobDetails) -> int:
    """What `sweep` ended with; of a job that was stopped or never began, what it would have said."""
    if info.status is JobStatus.STOPPED:
        return TERMINATED
    if info.driver_exit_code is None or info.driver_exit_code < 0:
        print(f"the job {info.status.value}: {info.message}", file=sys.stderr)
        return FAILED
    return int(info.driver_exit_code)
