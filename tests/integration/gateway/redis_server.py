"""A real Redis for the tests: the installed one, or Debian's package unpacked and not installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.integration.gateway.bed import wait_for
from tests.integration.gateway.processes import Server

PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1")
"""The server and what it loads beyond the C library's own neighbours."""


def redis_binary(folder: Path) -> tuple[str, dict[str, str]] | None:
    """Redis and the environment that it needs; None if there is none to be had."""
    if (installed := shutil.which("redis-server")) is not None:
        return installed, {}
    folder.mkdir(parents=True, exist_ok=True)
    download = ["apt-get", "-q", "download", *PACKAGES]
    try:
        if subprocess.run(download, cwd=folder, capture_output=True).returncode != 0:
            subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)  # a new machine has no lists
            subprocess.run(download, cwd=folder, check=True, capture_output=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), "."], cwd=folder, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    (library,) = (folder / "usr/lib").glob("*-linux-gnu")
    return str(folder / "usr/bin/redis-server"), {"LD_LIBRARY_PATH": str(library)}


def redis_server(binary: tuple[str, dict[str, str]], address: str, port: int, folder: Path) -> Server:
    """A Redis that keeps nothing on disk."""
    path, environment = binary
    command = [path, "--bind", address, "--port", str(port), "--save", "", "--dir", str(folder)]
    return Server(command, folder / "redis.log", environment)


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
