"""The ledger as a process: its options, and what it is started with."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from holdfast_gateway.ledger.shipper import SPOOL_MAX
from holdfast_gateway.options import Options

SHARED = ("role", "listen", "relay_port", "admin_port", "ledger")
OWN = ("gateway_name", "spool_max", "ledger_grace", "lag_warning", "ledger_status_port", "drain")
DEFAULT_STATUS_PORT = 9909
SINK = "HOLDFAST_LEDGER_SINK"
"""Environment variable with the sink, which may hold a password."""


def ledger_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where records go."""
    flags = [
        click.option("--sink", default="", metavar="URL", envvar=SINK, show_envvar=True,
                     help="Where records are kept: file:///FOLDER, nats://HOST:4222/STREAM?subject=SUBJECT, or none: "
                     "for a spool that only others follow."),
        click.option("--gateway-name", default=socket.gethostname, help="In each record. Default: the host's name."),
        click.option("--spool-max", default=SPOOL_MAX, show_default=True, type=click.IntRange(min=1024 * 1024),
                     help="Bytes; beyond them the eldest records are dropped and counted as lost."),
        click.option("--ledger-grace", default=5.0, show_default=True,
                     help="Seconds that the record of a stream waits for what the relay knows of it."),
        click.option("--lag-warning", default=60.0, show_default=True, help="Seconds after which the log warns."),
        click.option("--ledger-status-port", default=DEFAULT_STATUS_PORT, show_default=True,
                     help="Its health, metrics; 0: none."),
    ]  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def config(flags: Mapping[str, Any], options: Options) -> Any:
    """What the shipper is started with; raises a usage error where something is missing."""
    from holdfast_gateway.ledger.server import ServeConfig
    from holdfast_gateway.ledger.shipper import Settings
    from holdfast_gateway.ledger.sinks.places import sink

    check(flags, options)
    settings = Settings(
        directory=Path(options.ledger),
        gateway=flags["gateway_name"],
        relay=f"{options.own_address}:{options.relay_port}" if options.relay_port else "",
        grace=flags["ledger_grace"],
        spool_max=flags["spool_max"],
        lag_warning=flags["lag_warning"],
    )
    try:
        sink(flags["sink"], settings.gateway)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return ServeConfig(
        settings=settings,
        sink=flags["sink"],
        admin_port=options.admin_port,
        status_address=options.listen,
        status_port=flags["ledger_status_port"],
        drain=flags["drain"],
    )


def check(flags: Mapping[str, Any], options: Options) -> None:
    """Raises a usage error where something is missing."""
    if not options.ledger:
        raise click.UsageError("the ledger needs its spool: give --ledger, the same as to init and agent")
    if not flags["sink"]:
        raise click.UsageError("the ledger needs a place for its records: give --sink, such as file:///var/lib/usage")


def command(flags: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The ledger's command line with the same options as this process, and what it adds to the environment."""
    given = [f"--{name.replace('_', '-')}={flags[name]}" for name in (*SHARED, *OWN)]
    return [sys.executable, "-m", "holdfast_gateway", "ledger", *given], {SINK: flags["sink"]}
