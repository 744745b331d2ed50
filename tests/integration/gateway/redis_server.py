"""A real Redis for the tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.debian import program
from tests.integration.gateway.bed import free_port, wait_for
from tests.integration.gateway.processes import Server

PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1")
"""The server and what it loads beyond the C library's own neighbours."""


@contextmanager
def running(folder: Path) -> Iterator[tuple[Server, str]]:
    """A Redis that keeps nothing on disk, and its URL; skips the test if there is none to be had."""
    binary = program("redis-server", folder / "package", *PACKAGES)
    if binary is None:
        pytest.skip("no Redis: neither is redis-server installed nor can its Debian package be fetched")
    port = free_port()
    command = [binary.path, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    server = Server(command, folder / "redis.log", binary.environment)
    server.start()
    try:
        wait_for_redis("127.0.0.1", port)
        yield server, f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()


def wait_for_redis(address: str, port: int) -> None:
    """Until it answers a ping."""

    def answers() -> bool:
        try:
            with socket.create_connection((address, port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    wait_for(answers, f"Redis answers on port {port}, as user {os.getuid()}")
