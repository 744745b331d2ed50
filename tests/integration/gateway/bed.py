"""Real gateways and engine stand-ins on loopback addresses: several regions and an edge in front of them.

Each bed has addresses of its own, 127.BED.REGION.HOST, so that beds never meet.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from tests.integration.gateway.processes import LIMITER_PORT, RELAY_PORT, Server, engine, gateway, limiter, relay

from holdfast.api.route import EngineProtocol, RegionTarget, Route, TrafficMode
from holdfast_gateway import files
from holdfast_gateway.issuers import Issuer
from holdfast_gateway.options import Options, Role
from holdfast_gateway.render.files import files as render_files
from holdfast_gateway.state import Snapshot
from holdfast_gateway.tenants import Tenant

DEADLINE = 30.0
ENGINE_PORT = 8000
TIMING = {"unused_interval": 0.25}
"""Nobody waits for seconds until gateways that started one after the other see each other."""
LIMITER_HEALTHY = r"^cluster\.limits\.membership_healthy$"


ANY_CERTIFICATE = ssl.create_default_context()
ANY_CERTIFICATE.check_hostname, ANY_CERTIFICATE.verify_mode = False, ssl.CERT_NONE


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_number() -> int:
    """The number of a bed at whose addresses nobody listens: not another bed, nor what an earlier one left."""
    numbers = random.sample(range(1, 250), 249)
    places = [(place, host, port) for place in (1, 2, 3) for host, port in ((1, 8080), (1, 8081), (10, ENGINE_PORT))]
    return next(n for n in numbers if all(is_free(f"127.{n}.{place}.{host}", port) for place, host, port in places))


def is_free(address: str, port: int) -> bool:
    """Whether nobody listens there. Servers that share ports would not say so themselves."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Polls until the condition holds; AssertionError after a generous time."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.05)


def status_of(url: str) -> int:
    """HTTP status of a GET; 0 without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=2, context=ANY_CERTIFICATE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@dataclass
class Gateway:
    """One gateway: its files and its Envoy."""

    directory: Path
    options: Options
    server: Server
    relay: Server | None = None
    limiter: Server | None = None

    @property
    def servers(self) -> list[Server]:
        """All its processes."""
        return [each for each in (self.server, self.relay, self.limiter) if each is not None]

    @property
    def relay_url(self) -> str:
        """Where Envoy reaches its relay."""
        return f"http://{self.options.listen}:{RELAY_PORT}"

    @property
    def url(self) -> str:
        """Where clients reach it."""
        scheme = "https" if self.options.client_tls else "http"
        return f"{scheme}://{self.options.listen}:{self.options.client_port}"

    @property
    def peer_url(self) -> str:
        """Where peers reach it."""
        return f"http://{self.options.listen}:{self.options.peer_port}"

    @property
    def admin_url(self) -> str:
        """Envoy's admin interface."""
        return f"http://127.0.0.1:{self.options.admin_port}"

    def apply(self, snapshot: Snapshot) -> None:
        """Writes the files as the agent does."""
        files.write(self.directory, render_files(snapshot, self.options, str(self.directory)))

    def take(self, snapshot: Snapshot) -> None:
        """The same, and waits until Envoy has taken the routes of the service."""
        stat = r"\.rds\..*/default/chat\.update_success$"
        tables = [each for each in self._tables() if each["name"].endswith("/default/chat")]
        before = self.stat(stat)
        self.apply(snapshot)
        changed = sum(1 for each in self._tables() if each["name"].endswith("/default/chat") and each not in tables)
        wait_for(lambda: self.stat(stat) >= before + changed, "the routes are taken")

    def _tables(self) -> list[dict[str, Any]]:
        files = [json.loads(path.read_text()) for path in self.directory.glob("xds-*.json")]
        return [each for file in files for each in file["resources"] if each["@type"].endswith(".RouteConfiguration")]

    def healthy_regions(self) -> int:
        """How many regions this gateway would send requests to."""
        return self.stat(r"^cluster\.service/default/chat\.membership_healthy$")

    def healthy_engines(self) -> int:
        """How many engines of its region this gateway would send requests to."""
        return self.stat(r"^cluster\.local/default/chat\.membership_healthy$")

    def envoy_pid(self) -> int:
        """Process id of the Envoy under the wrapper; 0 if there is none."""
        path = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")
        return int((path.read_text().split() or ["0"])[0])

    def kill_envoy(self) -> None:
        """SIGKILL to Envoy alone."""
        os.kill(self.envoy_pid(), signal.SIGKILL)

    def stat(self, name: str) -> int:
        """One of Envoy's counters; 0 if it does not exist."""
        with urllib.request.urlopen(f"{self.admin_url}/stats?filter={name}", timeout=5) as response:
            lines = response.read().decode().split()
        return sum(int(value) for value in lines[1::2])


@dataclass
class Bed:
    """Regions with engines and gateways."""

    folder: Path
    number: int = field(default_factory=free_number)
    protocol: EngineProtocol = EngineProtocol.H2C
    mode: TrafficMode = TrafficMode.ACTIVE_ACTIVE
    timing: dict[str, Any] = field(default_factory=dict)
    gateways: dict[str, Gateway] = field(default_factory=dict)
    engines: dict[str, Server] = field(default_factory=dict)
    make_engine: Callable[[str, str, int, Path], Server] | None = None
    """From name, address, port and a folder for its log; None: the gateway tests' own stand-in."""
    relay_flags: tuple[str, ...] | None = None
    """With flags, if only (), every gateway has a relay for streams."""
    envoy_flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    """Of the gateways' processes."""
    ledger: bool = False
    """Whether every gateway spools records, in the folder `ledger` beside its files."""
    ledger_content: int = 0
    """Bytes of each request and answer in a record."""
    limiter_flags: tuple[str, ...] | None = None
    """With flags, if only (), every gateway has a limiter of its own."""
    route_fields: dict[str, Any] = field(default_factory=dict)
    tenants: tuple[Tenant, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    regions: dict[str, int] = field(default_factory=dict)
    """Region → how many engines it has."""

    def address(self, region: str, host: int) -> str:
        """An address of a region; host 1 is its gateway, 10 and up are its engines."""
        place = list(self.regions).index(region) + 1
        return f"127.{self.number}.{place}.{host}"

    def engine_addresses(self, region: str) -> tuple[str, ...]:
        """The addresses of a region's engines."""
        return tuple(self.address(region, 10 + number) for number in range(self.regions[region]))

    def route(self, region: str) -> Route:
        """The route that this region's operator would write."""
        targets = tuple(RegionTarget(name=name, address=self.address(name, 1)) for name in self.regions)
        return Route(
            namespace="default", service="chat", model="llama", region=region, local=self.regions[region] > 0,
            engine_port=ENGINE_PORT, engine_protocol=self.protocol, mode=self.mode, regions=targets,
            **self.route_fields,
        )  # fmt: skip

    def snapshot(self, region: str) -> Snapshot:
        """What this region's agent would see."""
        route = self.route(region)
        return Snapshot((route,), {route.key: self.engine_addresses(region)}, {}, self.tenants, self.issuers)

    def edge_snapshot(self) -> Snapshot:
        """What an edge's agent would see."""
        return Snapshot((self.route(next(iter(self.regions))),), {}, {}, self.tenants, self.issuers)

    def set_tenants(self, *tenants: Tenant) -> None:
        """Writes the files of all gateways anew, as their agents do when the Secrets change."""
        self.tenants = tenants
        for name, found in self.gateways.items():
            found.apply(self.edge_snapshot() if found.options.role is Role.EDGE else self.snapshot(name))

    def start(self, edge: bool = True) -> None:
        """Starts everything and waits until every gateway is ready and every region has a healthy engine."""
        for region in self.regions:
            for number, address in enumerate(self.engine_addresses(region)):
                name = f"{region}-{number}"
                self.engines[name] = self._engine(name, address)
                self.engines[name].start()
            self.add_gateway(region, Role.REGIONAL, self.address(region, 1), self.snapshot(region))
        if edge:
            self.add_gateway("edge", Role.EDGE, f"127.{self.number}.250.1", self.edge_snapshot())
        self.wait_ready(self.gateways)

    @contextmanager
    def running(self, edge: bool = True) -> Iterator[Bed]:
        """Starts everything, as `start` does, and ends it with the body."""
        try:
            self.start(edge)
            yield self
        finally:
            self.stop()

    def _engine(self, name: str, address: str) -> Server:
        if self.make_engine is not None:
            return self.make_engine(name, address, ENGINE_PORT, self.folder)
        http = "auto" if self.protocol is EngineProtocol.H2C else "1"
        return engine(name, address, ENGINE_PORT, self.folder, http)

    def add_gateway(self, name: str, role: Role, listen: str, snapshot: Snapshot) -> None:
        """Starts one gateway with its files in place."""
        options = replace(Options(role=role, listen=listen, admin_port=free_port()), **TIMING | self.timing)
        if self.relay_flags is not None:
            options = replace(options, relay_port=RELAY_PORT)
        if self.limiter_flags is not None:
            options = replace(options, limits=f"{listen}:{LIMITER_PORT}")
        directory = self.folder / name
        if self.ledger:
            options = replace(options, ledger=str(directory / "ledger"), ledger_content=self.ledger_content)
        files.initialise(directory, options)
        flags = ("--settle", "0.5", *self.envoy_flags)
        made = Gateway(directory, options, gateway(directory, options.admin_port, *flags, env=self.env))
        made.apply(snapshot)
        made.server.start()
        if self.relay_flags is not None:
            spool = ("--ledger", options.ledger) if self.ledger else ()
            made.relay = relay(directory, listen, *self.relay_flags, *spool, env=self.env)
            made.relay.start()
        if self.limiter_flags is not None:
            given = ["--ledger", options.ledger, "--relay-port", str(options.relay_port)] if self.ledger else []
            made.limiter = limiter(directory, listen, *self.limiter_flags, *given)
            made.limiter.start()
        self.gateways[name] = made

    def wait_ready(self, names: Iterable[str]) -> None:
        """Until the gateways answer and know their engines and each other to be healthy."""
        for name in names:
            found = self.gateways[name]
            wait_for(lambda found=found: status_of(f"{found.url}/ready") == 200, f"{name} is ready")
            if found.options.role is Role.REGIONAL and self.regions[name] > 0:
                engines = self.regions[name]
                wait_for(
                    lambda found=found, engines=engines: found.healthy_engines() == engines,
                    f"{name} sees {engines} healthy engines",
                )
        for name in names:
            found = self.gateways[name]
            if found.relay is not None:
                wait_for(
                    lambda found=found: (
                        found.stat(r"^cluster\.stream/default/chat\.membership_healthy$") == 1 + found.healthy_regions()
                    ),
                    f"{name} sees its relay",
                )
            if found.limiter is not None:
                wait_for(lambda found=found: found.stat(LIMITER_HEALTHY) == 1, f"{name} sees its limiter")
            hosts = sum(1 for count in self.regions.values() if count > 0)
            wait_for(
                lambda found=found, hosts=hosts: found.healthy_regions() == hosts,
                f"{name} sees {hosts} healthy regions",
            )

    def repair(self) -> None:
        """Thaws what is frozen, starts what is dead, and waits until all is well."""
        for server in self._servers():
            server.thaw()
            if not server.running():
                server.start()
        self.wait_ready(self.gateways)

    def set_health(self, engine: str, status: int) -> int:
        """Makes an engine answer its health checks with this status."""
        with httpx.Client(http1=False, http2=True, timeout=5) as client:
            return client.get(f"http://{engine}:{ENGINE_PORT}/set-health?{status}").status_code

    def stop(self) -> None:
        """Ends every process that this bed started."""
        for server in self._servers():
            server.kill()

    def _servers(self) -> list[Server]:
        return [*self.engines.values(), *(server for found in self.gateways.values() for server in found.servers)]
