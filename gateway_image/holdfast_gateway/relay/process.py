"""The relay as a process: what it is started with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from holdfast_gateway.options import Options
from holdfast_gateway.relay.search import Patience

SHARED = ("role", "listen", "relay_port", "outbound_port", "max_body", "ledger")
TRACED = ("otlp_endpoint", "trace_sampling", "resource_attributes")
OWN = ("relay_status_port", "keep_alive", "resume_timeout", "resume_search", "drain")


def serve(config: Any) -> NoReturn:
    """Runs the relay in this process."""
    from holdfast_gateway.relay.server import serve as serve_relay  # granian: for this command alone

    serve_relay(config)


def config(directory: Path, flags: Mapping[str, Any], options: Options) -> Any:
    """What the relay is started with; raises a usage error if the gateway has none."""
    from holdfast_gateway.relay.server import ServeConfig

    if not options.relay_port:
        raise click.UsageError("the relay needs a port: give --relay-port, the same as to init and agent")
    return ServeConfig(
        directory=directory,
        address=options.own_address,
        port=options.relay_port,
        outbound_port=options.outbound_port,
        status_address=options.listen,
        status_port=flags["relay_status_port"],
        patience=Patience(flags["resume_timeout"], flags["resume_search"], flags["keep_alive"]),
        max_body=options.max_body,
        drain=flags["drain"],
        otlp_endpoint=options.otlp_endpoint,
        trace_sampling=options.trace_sampling,
        resource_attributes=options.resource_attributes,
        spool=Path(options.ledger) if options.ledger else None,
    )


def command(directory: Path, flags: Mapping[str, Any]) -> list[str]:
    """The relay's command line, with the same options as this process."""
    given = [f"--{name.replace('_', '-')}={flags[name]}" for name in (*SHARED, *OWN, *TRACED)]
    return [sys.executable, "-m", "holdfast_gateway", "relay", f"--dir={directory}", *given]
