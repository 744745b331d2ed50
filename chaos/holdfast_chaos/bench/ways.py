"""The ways from a client to one engine, as real servers on loopback: direct, bare Envoy, gateways, a peer's proxy.

Holdfast's Envoys run with the very files and flags that the product gives them; the bare one with as little as Envoy
needs to forward to the same engine, and with the same flags. LiteLLM runs as `peer` says.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from holdfast.api.route import RegionTarget, Route
from holdfast_chaos.edge import HOST, free_ports
from holdfast_gateway import envoy, files
from holdfast_gateway.options import Auth, Options, Role
from holdfast_gateway.render.files import BOOTSTRAP
from holdfast_gateway.render.files import files as render_files
from holdfast_gateway.state import Snapshot
from holdfast_gateway.tenants import Settings, Tenant
from holdfast_testbed.progress import Update

from . import peer
from .bare_envoy import bare_bootstrap
from .servers import START_SECONDS, Server, answers

DIRECT, BARE, GATEWAY, EDGE, PEER = "direct", "bare Envoy", "gateway", "edge and gateway", peer.NAME
TENANTS = "gateway with tenants"
MODEL = "bench"
PATH = "/v1/chat/completions"
PROMPT_BYTES = 512
MESSAGES = [{"role": "user", "content": "word " * (PROMPT_BYTES // 5)}]
BODY = json.dumps({"model": MODEL, "messages": MESSAGES, "max_tokens": 32}).encode()
KNOWN_TENANTS = 100
"""Each with a key and a limit, as the gateway looks a request's up among all."""
REQUESTS_PER_MINUTE = 6_000_000
"""Counted, but more than anybody can ask."""


@dataclass(frozen=True)
class Way:
    """One way to the engine."""

    name: str
    url: str
    proxies: tuple[int, ...]
    """Process ids of the proxies on it."""
    headers: Mapping[str, str] = field(default_factory=dict)


class Starter:
    """Starts servers with files in `folder`, and waits until they answer `body`; they end with `stack`."""

    def __init__(
        self, stack: ExitStack, folder: Path, update: Update, body: bytes = BODY, app: str = "engine_stand_in"
    ) -> None:
        self.folder = folder
        self._stack = stack
        self._update = update
        self._body = body
        self._app = app

    def server(
        self, name: str, command: list[str], way: Way, environment: Mapping[str, str] | None = None,
        seconds: float = START_SECONDS,
    ) -> Way:  # fmt: skip
        """The way with the server's process on it. Raises BenchError."""
        self._update(f"starting: {name}")
        log = self.folder / f"{name.replace(' ', '-')}.log"
        server = self._stack.enter_context(Server(name, command, log, environment))
        server.wait_until(lambda: answers(way.url, self._body, way.headers), seconds)
        return Way(way.name, way.url, (*way.proxies, server.pid), way.headers)

    def engine(self, port: int) -> str:
        """The engine stand-in; the base of its URLs."""
        self.server("engine stand-in", engine_command(port, self._app), Way(DIRECT, url_of(port), ()))
        return f"http://{HOST}:{port}/v1"

    def bare(self, port: int, engine_port: int) -> Way:
        """A bare Envoy."""
        folder = self.folder / "bare"
        folder.mkdir()
        (folder / BOOTSTRAP).write_text(files.to_yaml(bare_bootstrap(port, engine_port)))
        command = envoy.command(envoy.Process(folder, concurrency=1))
        return self.server(BARE, command, Way(BARE, url_of(port), ()))

    def gateway(self, way: Way, snapshot: Snapshot, options: Options) -> Way:
        """Envoy with the files that the gateway's agent writes."""
        folder = self.files_of(way)
        files.initialise(folder, options)
        files.write(folder, render_files(snapshot, options, str(folder)))
        made = self.server(way.name, gateway_command(folder, options), way)
        # Who serves Envoy, and Envoy.
        envoys = (each.pid for each in psutil.Process(made.proxies[-1]).children())
        return Way(made.name, made.url, (*made.proxies, *envoys), made.headers)

    def files_of(self, way: Way) -> Path:
        """Where a gateway's files are."""
        return self.folder / way.name.replace(" ", "-")

    def peer(self, program: Path, port: int, engine: str) -> Way:
        """LiteLLM's proxy."""
        config = self.folder / "litellm.yaml"
        config.write_text(peer.config(MODEL, engine))
        command = peer.command(program, config, HOST, port)
        return self.server(PEER, command, Way(PEER, url_of(port), ()), peer.environment(), peer.START_SECONDS)


@contextmanager
def open_ways(update: Update, litellm: Path | None) -> Iterator[list[Way]]:
    """Start everything; leaving ends it. `litellm` is its program; None leaves it out. Raises BenchError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-bench-")))
        start = Starter(stack, folder, update)
        engine_port, bare_port, peer_port, *ports = free_ports(14)
        engine = start.engine(engine_port)
        regional, outer = regional_options(ports[:4]), edge_options(ports[4:7])
        guarded = regional_options(ports[7:11], auth=Auth.REQUIRED, requests_per_minute=REQUESTS_PER_MINUTE)
        snapshot = snapshot_of(engine_port, regional)
        gateway = start.gateway(Way(GATEWAY, url_of(regional.client_port), ()), snapshot, regional)
        tenants = tuple(tenant(number) for number in range(KNOWN_TENANTS))
        key = {"authorization": f"Bearer {tenants[-1].keys[0]}"}
        edge = start.gateway(Way(EDGE, url_of(outer.client_port), gateway.proxies), Snapshot(snapshot.routes), outer)
        yield [
            Way(DIRECT, url_of(engine_port), ()),
            start.bare(bare_port, engine_port),
            gateway,
            start.gateway(
                Way(TENANTS, url_of(guarded.client_port), (), key),
                snapshot_of(engine_port, guarded, tenants),
                guarded,
            ),
            edge,
            *([start.peer(litellm, peer_port, engine)] if litellm else []),
        ]


def url_of(port: int) -> str:
    """Where a server is asked."""
    return f"http://{HOST}:{port}{PATH}"


def gateway_command(folder: Path, options: Options) -> list[str]:
    """The product's own command that runs Envoy, with one worker, from files that are there."""
    command = [sys.executable, "-m", "holdfast_gateway", "envoy", f"--dir={folder}", "--concurrency=1"]
    return [*command, f"--admin-port={options.admin_port}"]


def engine_command(port: int, app: str) -> list[str]:
    """An engine stand-in, which speaks HTTP/2 to gateways and HTTP/1.1 to clients that ask it directly."""
    return [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--http", "auto", "--no-ws"),
        *("--host", HOST, "--port", str(port), "--log-level", "warning"),
        f"{__package__}.{app}:app",
    ]


def regional_options(ports: list[int], **others: Any) -> Options:
    """A region's gateway on four ports."""
    client, peers, metrics, admin = ports
    return Options(
        Role.REGIONAL, HOST, client_port=client, peer_port=peers, metrics_port=metrics, admin_port=admin, **others
    )


def edge_options(ports: list[int]) -> Options:
    """An edge on three ports."""
    client, metrics, admin = ports
    return Options(Role.EDGE, HOST, client_port=client, metrics_port=metrics, admin_port=admin)


def snapshot_of(engine_port: int, options: Options, tenants: tuple[Tenant, ...] = ()) -> Snapshot:
    """What a gateway's agent knows: one service of one region, with one engine."""
    route = bench_route(engine_port, options.peer_port)
    return Snapshot((route,), {route.key: (HOST,)}, tenants=tenants)


def bench_route(engine_port: int, peer_port: int) -> Route:
    """The service of one region."""
    return Route(
        namespace="default", service="bench", model=MODEL, region="here", engine_port=engine_port,
        regions=(RegionTarget(name="here", address=HOST, peer_port=peer_port),),
    )  # fmt: skip


def tenant(number: int) -> Tenant:
    """One of many, who may use everything."""
    return Tenant(name=f"tenant-{number:03}", keys=(f"sk-bench-{number:024}",), settings=Settings())


def parameters() -> dict[str, Any]:
    """What the ways have in common."""
    return {
        "envoy_worker_threads": 1,
        "request_bytes": len(BODY),
        "gateway_options": asdict(Options(Role.REGIONAL)),
        "tenants": {"known": KNOWN_TENANTS, "requests_per_minute": REQUESTS_PER_MINUTE},
        "litellm": {"version": peer.VERSION, "workers": 1, "environment": peer.ENVIRONMENT},
    }
