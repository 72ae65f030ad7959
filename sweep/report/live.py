"""The report of a running sweep over HTTP: one page, on this machine only, made anew when the store has changed."""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

from attacks.errors import InputError
from sweep import lease
from sweep.report.page import gather
from sweep.store import Store

_log = logging.getLogger(__name__)
HOST = "127.0.0.1"
REFRESH_SECONDS = 2.0
_SHARE = 3.0
"""A page that took a second to make is made at most every so many seconds: the trials need the processors too."""


class Server(ThreadingHTTPServer):
    """`with Server(store, matrix_id, port) as server: server.serve_forever()`; port 0 takes a free one. InputError
    where the port is taken, or the page cannot be made."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, store: Store, matrix_id: str | None, port: int) -> None:
        self.pages = _Pages(store, matrix_id)
        self.pages.newest()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as e:
            raise InputError(f"cannot serve on {HOST}:{port}: {e.strerror}; choose another --port, or none") from e

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"


@dataclass
class _Pages:
    """The newest page with what the store looked like when it was made."""

    store: Store
    matrix_id: str | None
    _seen: str = ""
    _page: bytes = b""
    _due: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def newest(self) -> tuple[str, bytes]:
        """The version and the page; one thread at a time looks at the store."""
        with self._lock:
            began = monotonic()
            if began >= self._due and (stamp := looks(self.store)) != self._seen:
                made = gather(self.store, self.matrix_id).html(refresh=REFRESH_SECONDS, version=stamp)
                self._page, self._seen = made.encode(), stamp
            self._due = max(self._due, began + _SHARE * (monotonic() - began))
            return self._seen, self._page


def looks(store: Store) -> str:
    """Changes whenever a file of the sweep that the page shows does."""
    folder = store.folder
    digest = hashlib.sha256()
    for name in (*folder.names("plans"), *folder.names("parquet")):
        digest.update(name.encode() + b"\n")
        if name.startswith("parquet/epochs/"):  # written over as the epochs end
            try:
                digest.update(folder.read(name))
            except FileNotFoundError:  # compacted since it was listed
                continue
    holder = lease.holder(folder)
    digest.update(b"held" if holder is not None and not holder.dead() else b"free")
    return digest.hexdigest()[:16]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        if self.headers.get("Host") not in [f"{name}:{self.server.server_port}" for name in (HOST, "localhost")]:
            return self._end(HTTPStatus.MISDIRECTED_REQUEST)  # a page elsewhere whose name was made to lead here
        if self.path.partition("?")[0] != "/":
            return self._end(HTTPStatus.NOT_FOUND)
        try:
            version, page = self.server.pages.newest()
        except InputError as e:
            _log.warning("%s", e)
            return self._end(HTTPStatus.SERVICE_UNAVAILABLE)
        if self.headers.get("If-None-Match") == f'"{version}"':
            return self._end(HTTPStatus.NOT_MODIFIED)
        return self._end(HTTPStatus.OK, page, version, body)

    def _end(self, status: HTTPStatus, page: bytes = b"", version: str = "", body: bool = True) -> None:
        self.send_response(status)
        if status is not HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
        if version:
            self.send_header("ETag", f'"{version}"')
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if body and page:
            self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        _log.debug(format, *args)
