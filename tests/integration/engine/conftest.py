"""Starts real engine servers on free loopback ports, and a bare HTTP/2 client that can reset one stream."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from holdfast_engine.engines.served import free_port
from holdfast_engine.tiny_model import write_tiny_model

DEADLINE = float(os.environ.get("HOLDFAST_TEST_SECONDS", "60"))
"""Seconds that a wait may take on a busy machine; nothing is asserted about times."""
LONG = 4000
"""Tokens of an answer that would take minutes on a paced engine."""


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value; fails the test after DEADLINE."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    return pytest.fail(f"waited {DEADLINE:g} seconds for: {what}")


class EngineProcess:
    """One `holdfast-engine serve`, in a subprocess."""

    def __init__(self, model: Path | None, *options: str, output: int | None = None) -> None:
        self.port = free_port()
        self.grpc_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "holdfast_engine", "serve", "--served-name", "tiny", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--grpc-port", str(self.grpc_port)]
        command += [*([] if model is None else ["--model", str(model)]), *options]
        self.process = subprocess.Popen(command, stdout=output, stderr=output)
        self.client = self.connect()

    def connect(self, http2: bool = False) -> httpx.Client:
        """A client of its own connections; HTTP/2 by prior knowledge."""
        return httpx.Client(base_url=self.url, http1=not http2, http2=http2, timeout=DEADLINE)

    def status(self, path: str = "/health") -> int | None:
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return None

    def wait_ready(self) -> EngineProcess:
        wait_until(lambda: self.status() == 200, "the engine to be ready")
        return self

    def ask(self, **fields: Any) -> httpx.Response:
        body = {"model": "tiny", "prompt": "Once upon", "temperature": 0, **fields}
        return self.client.post("/v1/completions", json=body)

    def metric(self, name: str, **labels: str) -> float:
        text = self.client.get("/metrics").text
        pattern = rf"^{re.escape(name)}\{{([^}}]*)\}} (\S+)$"
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for found, value in re.findall(pattern, text, re.MULTILINE):
            if all(label in found for label in wanted):
                return float(value)
        raise KeyError(name)

    def running(self) -> float:
        return self.metric("vllm:num_requests_running")

    def waiting(self) -> float:
        return self.metric("vllm:num_requests_waiting")

    def wait_load(self, running: int, waiting: int = 0) -> None:
        wait_until(
            lambda: (self.running(), self.waiting()) == (running, waiting),
            f"{running} running and {waiting} waiting requests",
        )

    def worker_pid(self) -> int:
        """The pipeline process; of an engine with a server of its own, that server."""
        pid = self.process.pid
        while pid == self.process.pid or b"holdfast_engine.engines.launch" in Path(f"/proc/{pid}/cmdline").read_bytes():
            (pid,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return pid

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class RawStream:
    """One POST over a socket of its own, HTTP/1.1 or HTTP/2, whose reading and end the test decides."""

    def __init__(self, port: int, http2: bool, **fields: Any) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.received = b""
        self._unparsed = b""
        self._going_away = False
        body = json.dumps({"model": "tiny", "prompt": "Once upon", "temperature": 0, **fields}).encode()
        self._h2: h2.connection.H2Connection | None = None
        if http2:
            self._h2 = self._begin_http2(body)
        else:
            self._begin_http1(body)

    def _begin_http1(self, body: bytes) -> None:
        head = f"POST /v1/completions HTTP/1.1\r\nhost: engine\r\ncontent-length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)

    def _begin_http2(self, body: bytes) -> h2.connection.H2Connection:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        head = {":method": "POST", ":scheme": "http", ":authority": "engine", ":path": "/v1/completions"}
        connection.send_headers(1, list(head.items()))
        connection.send_data(1, body, end_stream=True)
        self.socket.sendall(connection.data_to_send())
        return connection

    def read(self, timeout: float) -> bytes:
        """What of the answer arrives within `timeout` seconds: HTTP/1.1 bytes, or HTTP/2 response events."""
        self.socket.settimeout(timeout)
        try:
            chunk = self.socket.recv(65536)
        except TimeoutError:
            return b""
        if self._h2 is None:
            return chunk
        return self._take_frames(self._h2, chunk)

    def _take_frames(self, connection: h2.connection.H2Connection, chunk: bytes) -> bytes:
        content = b""
        self._unparsed += chunk
        while len(self._unparsed) >= 9 and len(self._unparsed) >= 9 + int.from_bytes(self._unparsed[:3], "big"):
            end = 9 + int.from_bytes(self._unparsed[:3], "big")
            frame, self._unparsed = self._unparsed[:end], self._unparsed[end:]
            if self._going_away:
                continue  # the library takes GOAWAY for the connection's end, and refuses the ping after it
            for event in connection.receive_data(frame):
                if isinstance(event, h2.events.ResponseReceived):
                    content += repr(event.headers).encode()
                elif isinstance(event, h2.events.DataReceived):
                    content += event.data
                elif isinstance(event, h2.events.ConnectionTerminated):
                    self._going_away = True
        self.socket.sendall(connection.data_to_send())
        return content

    def read_until(self, expected: bytes) -> None:
        def arrived() -> bool:
            self.received += self.read(0.1)
            return expected in self.received

        wait_until(arrived, f"{expected!r} in the answer")

    def leave(self) -> None:
        """HTTP/1.1: close the connection. HTTP/2: reset the stream and keep the connection."""
        if self._h2 is None:
            self.socket.close()
        else:
            self._h2.reset_stream(1)
            self.socket.sendall(self._h2.data_to_send())

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf").path


@pytest.fixture
def launch(model: Path) -> Iterator[Callable[..., EngineProcess]]:
    """Start an engine of the test's own, with options; not waited for. `model=` replaces the tiny model."""
    started: list[EngineProcess] = []

    def start(*options: str, model: Path = model) -> EngineProcess:
        started.append(EngineProcess(model, *options))
        return started[-1]

    yield start
    for engine in started:
        engine.stop()


@pytest.fixture(scope="session")
def engine(model: Path) -> Iterator[EngineProcess]:
    """A fast engine that all tests share."""
    process = EngineProcess(model)
    try:
        yield process.wait_ready()
    finally:
        process.stop()


@pytest.fixture(scope="session")
def shared_paced_engine(model: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(model, "--step-interval", "0.05", "--max-num-seqs", "2")
    try:
        yield process.wait_ready()
    finally:
        process.stop()


@pytest.fixture
def paced_engine(shared_paced_engine: EngineProcess) -> Iterator[EngineProcess]:
    """A slow engine that runs two requests at once; idle before and after the test."""
    shared_paced_engine.wait_load(running=0)
    yield shared_paced_engine
    shared_paced_engine.wait_load(running=0)


@pytest.fixture
def post_raw() -> Iterator[Callable[..., RawStream]]:
    opened: list[RawStream] = []

    def post(engine: EngineProcess, http2: bool = False, **fields: Any) -> RawStream:
        opened.append(RawStream(engine.port, http2, **fields))
        return opened[-1]

    yield post
    for stream in opened:
        stream.close()
