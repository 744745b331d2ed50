"""The command line's options, shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from holdfast.telemetry.options import tracing_options
from holdfast_gateway.options import Auth, Options, PeerTls, Role
from holdfast_gateway.relay.search import Patience

MOST_CONTENT = 65_536
"""Bytes of a body in a record: with escapes both still fit into a line of the spool."""
Command = Callable[..., Any]
DEFAULT = Options(role=Role.REGIONAL)
PATIENCE = Patience()
PAIR = ("tls.crt", "tls.key")
"""Files of a Secret of type kubernetes.io/tls."""
DIRECTORY = click.option(
    "--dir", "directory", required=True, type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    help="Where Envoy's files are.",
)  # fmt: skip
KUBECONFIGS = click.option(
    "--kubeconfig", "kubeconfigs", multiple=True,
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="API server to read routes from; an edge may be given several. Default: the Pod's own.",
)  # fmt: skip


def absolute(_context: click.Context, _option: click.Parameter, folder: str) -> str:
    """A folder's absolute path, as Envoy needs it; empty stays empty."""
    return str(Path(folder).absolute()) if folder else ""


def folder_with(*names: str) -> Callable[[click.Context, click.Parameter, str], str]:
    """Makes a folder's path absolute; a usage error where one of these files is not in it."""

    def checked(context: click.Context, option: click.Parameter, folder: str) -> str:
        found = absolute(context, option, folder)
        if found and (missing := [name for name in names if not (Path(found) / name).is_file()]):
            raise click.BadParameter(f"{folder} has no {' and no '.join(missing)}: it must hold {', '.join(names)}")
        return found

    return checked


def host_and_port(_: click.Context, __: click.Parameter, value: str) -> str:
    """What is given as HOST:PORT, or a usage error."""
    host, _separator, port = value.rpartition(":")
    if value and not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise click.BadParameter(f"{value!r} is not HOST:PORT, for example 127.0.0.1:9907")
    return value


def gateway_options(command: Command) -> Command:
    """The options that shape Envoy's files; `init` and `agent` of one gateway must be given the same."""
    flags: list[Command] = [
        click.option("--role", type=click.Choice([role.value for role in Role]), default=DEFAULT.role.value),
        click.option("--listen", default=DEFAULT.listen, show_default=True),
        click.option("--client-port", default=DEFAULT.client_port, show_default=True),
        click.option("--peer-port", default=DEFAULT.peer_port, show_default=True),
        click.option("--metrics-port", default=DEFAULT.metrics_port, show_default=True),
        click.option("--admin-port", default=DEFAULT.admin_port, show_default=True, help="On 127.0.0.1."),
        click.option("--status-port", default=DEFAULT.status_port, help="The agent's own port; 0 for none."),
        click.option("--relay-port", default=DEFAULT.relay_port, help="The stream relay's, on loopback; 0 for none."),
        click.option("--outbound-port", default=DEFAULT.outbound_port, show_default=True, help="The relay asks there."),
        click.option("--keepalive-interval", default=DEFAULT.keepalive_interval, show_default=True),
        click.option("--keepalive-timeout", default=DEFAULT.keepalive_timeout, show_default=True),
        click.option("--connect-timeout", default=DEFAULT.connect_timeout, show_default=True),
        click.option("--health-interval", default=DEFAULT.health_interval, show_default=True),
        click.option("--unused-interval", default=DEFAULT.unused_interval, show_default=True,
                     help="Between health checks of what was never used."),
        click.option("--health-timeout", default=DEFAULT.health_timeout, show_default=True),
        click.option("--unhealthy-after", default=DEFAULT.unhealthy_after, show_default=True),
        click.option("--max-body", default=DEFAULT.max_body, show_default=True, help="Bytes."),
        click.option("--max-connections", default=DEFAULT.max_connections, show_default=True,
                     type=click.IntRange(min=1), help="Of clients at once."),
        click.option("--peer-tls", default=DEFAULT.peer_tls, metavar="FOLDER", callback=folder_with(*PAIR, "ca.crt"),
                     help="Certificates for peers: tls.crt, tls.key, ca.crt; default: no TLS."),
        click.option("--peer-tls-mode", type=click.Choice([mode.value for mode in PeerTls]),
                     default=DEFAULT.peer_tls_mode.value, show_default=True,
                     help="Accepted: peers may use TLS; Preferred: and are asked by it; Required: and must use it."),
        click.option("--client-tls", default=DEFAULT.client_tls, metavar="FOLDER", callback=folder_with(*PAIR),
                     help="Certificate for clients: tls.crt, tls.key; default: no TLS."),
        click.option("--cors-origin", "cors_origins", multiple=True, metavar="ORIGIN",
                     help="Whose pages may ask from browsers, such as https://chat.example.com; * for all."),
        click.option("--auth", type=click.Choice([mode.value for mode in Auth]), default=DEFAULT.auth.value,
                     show_default=True, help="Whether clients must show a tenant's API key."),
        click.option("--tenant-namespace", default=DEFAULT.tenant_namespace, show_default=True,
                     help="Where the Secrets of tenants are."),
        click.option("--requests-per-minute", default=DEFAULT.requests_per_minute, type=click.IntRange(min=0),
                     help="Of a tenant without a limit of its own; default: no limit."),
        click.option("--burst", default=DEFAULT.burst, type=click.IntRange(min=0),
                     help="Of such a tenant at once; default: as many as in a minute."),
        click.option("--tokens-per-minute", default=DEFAULT.tokens_per_minute, type=click.IntRange(min=0),
                     help="Of a tenant without a limit of its own; needs --limits and --ledger; default: no limit."),
        click.option("--ledger", default=DEFAULT.ledger, metavar="DIR", callback=absolute,
                     help="Where a record of each request is spooled; default: nowhere."),
        click.option("--ledger-content", default=DEFAULT.ledger_content, metavar="BYTES",
                     type=click.IntRange(min=0, max=MOST_CONTENT),
                     help="Of each request's body and of its answer that its record holds; default: none."),
        click.option("--limits", default=DEFAULT.limits, metavar="HOST:PORT", callback=host_and_port,
                     help="The service that counts for all gateways; default: each counts for itself."),
        click.option("--limits-timeout", default=DEFAULT.limits_timeout, show_default=True,
                     help="Seconds that a request may wait for that service; then it passes."),
        click.option("--access-log/--no-access-log", default=DEFAULT.access_log, show_default=True),
        *tracing_options("HOLDFAST"),
        click.option("--resource-attributes", default=DEFAULT.resource_attributes, envvar="OTEL_RESOURCE_ATTRIBUTES",
                     metavar="KEY=VALUE,…", help="What all spans say of this gateway."),
    ]  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def envoy_options(command: Command) -> Command:
    """How Envoy is run."""
    flags = [
        click.option("--concurrency", default=2, show_default=True, help="Worker threads."),
        click.option("--log-level", default="warning", show_default=True),
        click.option("--settle", default=3.0, show_default=True, help="Draining: seconds before ports close."),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


def relay_options(command: Command) -> Command:
    """How streams are kept."""
    flags = [
        click.option("--relay-status-port", default=9906, show_default=True, help="Its health, metrics; 0: none."),
        click.option("--keep-alive", default=PATIENCE.keep_alive, show_default=True, help="Seconds of silence."),
        click.option("--resume-timeout", default=PATIENCE.first_token, show_default=True,
                     help="Seconds for the first token of an engine that continues a stream, if there is another."),
        click.option("--resume-search", default=PATIENCE.search, show_default=True,
                     help="Seconds to look for an engine that continues a stream."),
    ]  # fmt: skip
    for flag in reversed(flags):
        command = flag(command)
    return command


def drain_option(command: Command) -> Command:
    """How long what runs may take to end."""
    return click.option("--drain", default=900.0, show_default=True, help="Draining: seconds for running requests.")(
        command
    )


def read_options(flags: dict[str, Any]) -> Options:
    """Options from the command line's values, among which there may be others."""
    names = {field.name for field in fields(Options)}
    given = {name: value for name, value in flags.items() if name in names}
    chosen = {
        "role": Role(flags["role"]),
        "auth": Auth(flags["auth"]),
        "peer_tls_mode": PeerTls(flags["peer_tls_mode"]),
    }
    options = Options(**given | chosen)
    if options.peer_tls_mode is not PeerTls.REQUIRED and not options.peer_tls:
        raise click.UsageError("--peer-tls-mode is about the certificates of --peer-tls: give that as well")
    if options.ledger_content and not options.ledger:
        raise click.UsageError("--ledger-content is about the records of --ledger: give that as well")
    if options.limits and options.auth is not Auth.REQUIRED:
        raise click.UsageError("--limits is about tenants: give --auth=Required as well")
    if options.tokens_per_minute and not (options.limits and options.ledger):
        raise click.UsageError(
            "--tokens-per-minute needs --limits, and --ledger, where the tokens of requests are found"
        )
    return options
