"""The limiter as a process: what it is started with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from holdfast_gateway.options import Options

Command = Callable[..., Any]
STORE = "HOLDFAST_LIMITS_STORE"
"""Environment variable for the store's URL, as it may hold a password, which a command line would show."""

SHARED = ("role", "listen", "relay_port", "ledger", "limits")
OWN = ("limits_store_timeout", "limits_status_port")


def limiter_options(command: Command) -> Command:
    """How the limiter is run."""
    flags = [
        click.option("--limits-store", default="", envvar=STORE, show_envvar=True, metavar="memory|REDIS_URL",
                     help="Where requests are counted: a Redis, for all gateways, or memory, for this one alone."),
        click.option("--limits-store-timeout", default=0.03, show_default=True,
                     help="Seconds; less than --limits-timeout, so that the limiter can still answer."),
        click.option("--limits-status-port", default=9908, show_default=True, help="Its health, metrics; 0: none."),
    ]  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def serve(flags: Mapping[str, Any], options: Options) -> None:
    """Runs the limiter in this process; raises a usage error if it cannot be run so."""
    from holdfast_gateway.limiter.server import LimiterConfig, serve  # grpc, redis: for this command alone

    if not options.limits:
        raise click.UsageError("the limiter needs an address: give --limits HOST:PORT, the same as to init and agent")
    config = LimiterConfig(
        address=options.limits,
        store=flags["limits_store"] or "memory",
        store_timeout=flags["limits_store_timeout"],
        status_address=options.listen,
        status_port=flags["limits_status_port"],
        spool=Path(options.ledger) if options.ledger else None,
        relay=f"{options.own_address}:{options.relay_port}" if options.relay_port else "",
    )
    try:
        asyncio.run(serve(config))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def command(directory: Path, flags: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The limiter's command line with the same options as this process, and what it adds to the environment."""
    given = [f"--{name.replace('_', '-')}={flags[name]}" for name in (*SHARED, *OWN)]
    return [sys.executable, "-m", "holdfast_gateway", "limits", f"--dir={directory}", *given], {
        STORE: flags["limits_store"]
    }
