"""A small hub on the loopback interface: the endpoints that a push and a pull of a repository need, files in memory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories by id, each a mapping of paths to bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def _commit(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + files[name])
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, value: Any = None, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value if value is not None else {}).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _path(self) -> list[str]:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        return path.strip("/").split("/")

    def do_POST(self) -> None:
        path, body = self._path(), self._body()
        if path == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.server.repositories:
                return self._answer(409, {"error": "exists", "url": f"{self.server.address}/{name}"})
            self.server.repositories[name] = {}
            self.server.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return self._answer(200, {"url": f"{self.server.address}/{name}"})
        if path == ["api", "validate-yaml"]:
            return self._answer(200, {"errors": [], "warnings": []})
        name = "/".join(path[2:4])
        if name not in self.server.repositories:
            return self._answer(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
        if path[4] == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            return self._answer(200, {"files": modes})
        if path[4] == "commit":
            repository = self.server.repositories[name]
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    repository[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            commit = _commit(repository)
            address = f"{self.server.address}/{name}/commit/{commit}"
            return self._answer(200, {"commitUrl": address, "commitOid": commit, "pullRequestUrl": None})
        return self._answer(404, {"error": self.path})

    def do_GET(self) -> None:
        path = self._path()
        if path[:2] == ["api", "models"]:
            name = "/".join(path[2:4])
            files = self.server.repositories.get(name)
            if files is None:
                return self._answer(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
            siblings = [{"rfilename": entry} for entry in sorted(files)]
            if len(path) > 4 and path[4] == "tree":
                listed = [
                    {"type": "file", "path": entry, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for entry, content in sorted(files.items())
                ]
                return self._answer(200, json.dumps(listed).encode())
            return self._answer(200, {"id": name, "sha": _commit(files), "siblings": siblings})
        if len(path) > 4 and path[2] == "resolve":
            files = self.server.repositories.get("/".join(path[:2]), {})
            content = files.get("/".join(path[4:]))
            if content is None:
                return self._answer(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
            headers = {"X-Repo-Commit": _commit(files), "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            return self._answer(200, content, headers)
        return self._answer(404, {"error": self.path})

    do_HEAD = do_GET
