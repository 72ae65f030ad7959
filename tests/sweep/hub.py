"""What of the Hugging Face hub an upload speaks to, on loopback: repositories in memory, one token."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_right"


@dataclass
class Hub:
    """`repositories`: name -> whether it is private; `files`: of the last commit."""

    endpoint: str = ""
    repositories: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        self.repositories.setdefault(name, asked.get("private", asked.get("visibility") == "private"))
        return {"url": f"{self.endpoint}/{name}"}

    def preupload(self, asked: dict[str, Any]) -> dict[str, Any]:
        paths = [file["path"] for file in asked["files"]]
        modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
        return {"files": [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in paths]}

    def batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        def upload(oid: str) -> dict[str, Any]:
            return {"upload": {"href": f"{self.endpoint}/large/{oid}", "header": {}}}

        return {"transfer": "basic", "objects": [one | {"actions": upload(one["oid"])} for one in asked["objects"]]}

    def commit(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        for line in lines:
            said = line["value"]
            if line["key"] == "file":
                self.files[said["path"]] = base64.b64decode(said["content"])
            elif line["key"] == "lfsFile":
                self.files[said["path"]] = self.large[said["oid"]]
        return {"commitUrl": f"{self.endpoint}/{next(iter(self.repositories))}/commit/1", "commitOid": "1"}


@contextmanager
def hub() -> Iterator[Hub]:
    held = Hub()

    class Answers(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            held.large[self.path.rpartition("/")[2]] = self.body()
            self.answer(200, {})

        def do_POST(self) -> None:
            body = self.body()
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.answer(401, {"error": "Invalid credentials"})
            verbs = {"create": held.create, "preupload/main": held.preupload, "batch": held.batch}
            for verb, reply in verbs.items():
                if self.path.endswith(verb):
                    return self.answer(200, reply(json.loads(body)))
            if self.path.endswith("commit/main"):
                return self.answer(200, held.commit([json.loads(line) for line in body.splitlines()]))
            return self.answer(200, {})  # validate-yaml

        def body(self) -> bytes:
            if length := self.headers["Content-Length"]:
                return self.rfile.read(int(length))
            read = b""
            while size := int(self.rfile.readline(), 16):  # chunked
                read += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return read

        def answer(self, code: int, said: dict[str, Any]) -> None:
            data = json.dumps(said).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        held.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield held
        server.shutdown()
        thread.join()
