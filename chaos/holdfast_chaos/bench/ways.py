"""The ways from a client to one engine, as real servers on loopback: direct, bare Envoy, gateway, edge and gateway.

Holdfast's Envoys run with the very files and flags that the product gives them; the bare one with as little as Envoy
needs to forward to the same engine, and with the same flags.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.api.route import RegionTarget, Route
from holdfast_chaos.edge import HOST, free_ports
from holdfast_gateway import envoy, files
from holdfast_gateway.options import Options, Role
from holdfast_gateway.render.files import BOOTSTRAP
from holdfast_gateway.render.files import files as render_files
from holdfast_gateway.state import Snapshot
from holdfast_testbed.progress import Update

from .servers import Server, answers

DIRECT, BARE, GATEWAY, EDGE = "direct", "bare Envoy", "gateway", "edge and gateway"
MODEL = "bench"
PATH = "/v1/completions"
PROMPT_BYTES = 512
BODY = json.dumps({"model": MODEL, "prompt": "word " * (PROMPT_BYTES // 5), "max_tokens": 32}).encode()


@dataclass(frozen=True)
class Way:
    """One way to the engine."""

    name: str
    url: str
    proxies: tuple[int, ...]
    """Process ids of the Envoys on it."""


@contextmanager
def open_ways(update: Update) -> Iterator[list[Way]]:
    """Start everything; leaving ends it. Raises BenchError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-bench-")))
        engine_port, bare_port, *gateway_ports = free_ports(9)

        def start(name: str, command: list[str], url: str) -> int:
            update(f"starting the {name}")
            server = stack.enter_context(Server(name, command, folder / f"{name.replace(' ', '-')}.log"))
            server.wait_until(lambda: answers(url, BODY))
            return server.pid

        def start_envoy(name: str, port: int, directory: Path) -> tuple[str, int]:
            url = f"http://{HOST}:{port}{PATH}"
            return url, start(name, envoy.command(envoy.Process(directory, concurrency=1)), url)

        engine = f"http://{HOST}:{engine_port}{PATH}"
        start("engine stand-in", engine_command(engine_port), engine)
        bare, bare_pid = start_envoy(BARE, bare_port, _bare_folder(folder / "bare", bare_port, engine_port))
        regional = Options(
            Role.REGIONAL, HOST, client_port=gateway_ports[0], peer_port=gateway_ports[1],
            metrics_port=gateway_ports[2], admin_port=gateway_ports[3],
        )  # fmt: skip
        outer = Options(
            Role.EDGE, HOST, client_port=gateway_ports[4], metrics_port=gateway_ports[5], admin_port=gateway_ports[6]
        )
        route = bench_route(engine_port, regional.peer_port)
        gateway, gateway_pid = start_envoy(
            GATEWAY, regional.client_port, _gateway_folder(folder / "gateway", route, regional)
        )  # fmt: skip
        edge, edge_pid = start_envoy("edge", outer.client_port, _gateway_folder(folder / "edge", route, outer))
        yield [
            Way(DIRECT, engine, ()),
            Way(BARE, bare, (bare_pid,)),
            Way(GATEWAY, gateway, (gateway_pid,)),
            Way(EDGE, edge, (gateway_pid, edge_pid)),
        ]


def engine_command(port: int) -> list[str]:
    """The engine stand-in, which speaks HTTP/2 to gateways and HTTP/1.1 to clients that ask it directly."""
    return [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--http", "auto", "--no-ws"),
        *("--host", HOST, "--port", str(port), "--log-level", "warning"),
        f"{__package__}.engine_stand_in:app",
    ]


def bench_route(engine_port: int, peer_port: int) -> Route:
    """The service of one region."""
    return Route(
        namespace="default", service="bench", model=MODEL, region="here", engine_port=engine_port,
        regions=(RegionTarget(name="here", address=HOST, peer_port=peer_port),),
    )  # fmt: skip


def bare_bootstrap(port: int, engine_port: int) -> dict[str, Any]:
    """The least that makes Envoy forward everything to one HTTP/2 server."""
    extension = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{extension}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "engine"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{extension}.filters.http.router.v3.Router"},
            }
        ],
    }
    http2 = {
        "@type": f"{extension}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    hosts = [{"endpoint": {"address": _address(engine_port)}}]
    cluster = {
        "name": "engine",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "engine", "endpoints": [{"lb_endpoints": hosts}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "bare", "address": _address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def parameters() -> dict[str, Any]:
    """What the ways have in common."""
    return {"envoy_worker_threads": 1, "request_bytes": len(BODY), "gateway_options": asdict(Options(Role.REGIONAL))}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _bare_folder(directory: Path, port: int, engine_port: int) -> Path:
    directory.mkdir()
    (directory / BOOTSTRAP).write_text(files.to_yaml(bare_bootstrap(port, engine_port)))
    return directory


def _gateway_folder(directory: Path, route: Route, options: Options) -> Path:
    """Envoy's files as the gateway's agent writes them."""
    files.initialise(directory, options)
    engines = {route.key: (HOST,)} if options.role is Role.REGIONAL else {}
    files.write(directory, render_files(Snapshot((route,), engines), options, str(directory)))
    return directory
