"""Servers that keep models, for tests: Debian's docker-registry and a hub of our own (S3 is moto's); and a relay in
front of them that is slow, counts, and cuts connections.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.integration.engine.conftest import free_port, wait_until

CHUNK = 16 * 1024


class Relay:
    """Passes TCP connections on. `rate` in bytes a second of what the server sends, None: unlimited."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.rate: float | None = None
        self.sent = 0
        self.cut_after: int | None = None
        """Bytes of a connection's answers after which it is cut, once."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                sink.sendall(chunk)
                if not answers:
                    continue
                passed += len(chunk)
                self.sent += len(chunk)
                if self.cut_after is not None and passed >= self.cut_after:
                    self.cut_after = None
                    break
                if self.rate:
                    time.sleep(len(chunk) / self.rate)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def registry(binary: str, folder: Path, passwords: str = "") -> Iterator[int]:
    """A registry on a loopback port, without TLS; with `passwords`, lines of htpasswd, it lets nobody else in."""
    port = free_port()
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "log": {"level": "error", "accesslog": {"disabled": True}},
    }
    if passwords:
        (folder / "htpasswd").write_text(passwords)
        config["auth"] = {"htpasswd": {"realm": "models", "path": str(folder / "htpasswd")}}
    (folder / "registry.json").write_text(json.dumps(config))
    process = subprocess.Popen([binary, "serve", str(folder / "registry.json")], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), "the registry")
        yield port
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Hub(ThreadingHTTPServer):
    """As much of Hugging Face's HTTP interface as its library uses to read one model."""

    daemon_threads = True

    def __init__(self, name: str, files: dict[str, bytes], token: str) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.name, self.files, self.token = name, files, token
        self.commit = hashlib.sha1(repr(sorted(files)).encode()).hexdigest()
        self.requested: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class HubHandler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.requested.append(f"{self.command} {path} {self.headers.get('range', '')}".strip())
        if self.headers.get("authorization") != f"Bearer {hub.token}":
            self._answer(401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path in (f"/api/models/{hub.name}", f"/api/models/{hub.name}/revision/v1"):
            siblings = [{"rfilename": name, "size": len(content)} for name, content in hub.files.items()]
            self._answer(200, json.dumps({"id": hub.name, "sha": hub.commit, "siblings": siblings}).encode())
        elif path.startswith(prefix := f"/{hub.name}/resolve/{hub.commit}/") and path[len(prefix) :] in hub.files:
            content = hub.files[path[len(prefix) :]]
            extra = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": hub.commit}
            asked = self.headers.get("range")
            if asked:
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                extra["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self._answer(206, content[start:], extra)
            else:
                self._answer(200, content, extra)
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(OSError):
                self.wfile.write(body)
