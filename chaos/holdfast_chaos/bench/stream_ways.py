"""The ways of a stream from one engine, as real servers on loopback: a gateway without relay, one with it, LiteLLM."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from holdfast_chaos.edge import HOST, free_ports
from holdfast_testbed.progress import Update

from . import stream_stand_in
from .benchmark import BenchError
from .stream_client import exhaust, request
from .ways import GATEWAY, MODEL, PATH, Starter, Way, regional_options, snapshot_of, url_of

RELAY = "gateway and relay"
RESUMABLE = b"x-holdfast-resumable: true"
SHORT = {"messages": [{"role": "user", "content": "0 1"}], "max_tokens": 2}
BODY = json.dumps({"model": MODEL, "stream": True, **SHORT}).encode()
TRIES = 60


@contextmanager
def open_stream_ways(update: Update, litellm: Path | None) -> Iterator[list[Way]]:
    """Start everything; leaving ends it. The last process of the relay's way is the relay. Raises BenchError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-bench-")))
        start = Starter(stack, folder, update, BODY, stream_stand_in.__name__.rpartition(".")[2])
        engine_port, peer_port, relay_port, outbound_port, *ports = free_ports(12)
        engine = start.engine(engine_port)
        plain = regional_options(ports[:4])
        relaying = regional_options(ports[4:8], relay_port=relay_port, outbound_port=outbound_port)
        gateway = start.gateway(Way(GATEWAY, url_of(plain.client_port), ()), snapshot_of(engine_port, plain), plain)
        relayed = Way(RELAY, url_of(relaying.client_port), ())
        relayed = start.gateway(relayed, snapshot_of(engine_port, relaying), relaying)
        ports_of_relay = ["--relay-port", str(relay_port), "--outbound-port", str(outbound_port)]
        command = [sys.executable, "-m", "holdfast_gateway", "relay", "--dir", str(start.files_of(relayed))]
        command += ["--listen", HOST, *ports_of_relay, "--relay-status-port", "0"]
        relayed = start.server("relay", command, relayed)
        _wait_for_relay(relaying.client_port)
        yield [gateway, relayed, *([start.peer(litellm, peer_port, engine)] if litellm else [])]


def port_of(way: Way) -> int:
    """The port that clients of a way ask."""
    return int(way.url.removesuffix(PATH).rpartition(":")[2])


def _wait_for_relay(port: int) -> None:
    """Until streams pass the relay and could be continued by it."""
    asked = request(PATH, MODEL, 2)
    for _ in range(TRIES):
        if RESUMABLE in exhaust((HOST, port), asked, 1, 0.1, tuple).head.lower():
            return
    raise BenchError("No stream passes the relay.")
