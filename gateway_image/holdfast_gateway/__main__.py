"""The command line: `init`, `envoy`, `agent`, `relay`, `limits`, `ledger`, `run` (all of these), `render`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import yaml
from kubernetes.aio import client

from holdfast.api.route import Route
from holdfast.telemetry import logs
from holdfast.telemetry.options import log_format
from holdfast_gateway import envoy as envoy_process
from holdfast_gateway import status
from holdfast_gateway.agent import Agent
from holdfast_gateway.companions import Companion, supervise
from holdfast_gateway.files import initialise, to_yaml
from holdfast_gateway.flags import (
    DEFAULT,
    DIRECTORY,
    KUBECONFIGS,
    drain_option,
    envoy_options,
    gateway_options,
    read_options,
    relay_options,
)
from holdfast_gateway.ledger import process as ledger_process
from holdfast_gateway.ledger.process import ledger_options
from holdfast_gateway.ledger.report import usage
from holdfast_gateway.limiter import process as limiter_process
from holdfast_gateway.limiter.process import limiter_options
from holdfast_gateway.names import look_up
from holdfast_gateway.options import Auth, Options
from holdfast_gateway.relay import process as relay_process
from holdfast_gateway.render.files import files, start_files
from holdfast_gateway.sources import api_client, names_for, source
from holdfast_gateway.state import Snapshot, one_service_per_model


@click.group()
@click.option("--verbose", is_flag=True, envvar="HOLDFAST_VERBOSE", help="Log at DEBUG.")
@log_format("HOLDFAST_LOG_FORMAT")
def main(verbose: bool, log_format: str) -> None:
    """Holdfast's gateway: Envoy, and the agent that writes its files."""
    logs.set_up(log_format, logging.DEBUG if verbose else logging.INFO)


@main.command()
@DIRECTORY
@gateway_options
def init(directory: Path, **flags: Any) -> None:
    """Make a directory that Envoy can start from; keeps the last good configuration if there is one."""
    initialise(directory, read_options(flags))


@main.command("envoy")
@DIRECTORY
@click.option("--admin-port", default=DEFAULT.admin_port, show_default=True, help="As given to init.")
@envoy_options
@drain_option
@click.pass_context
def run_envoy(context: click.Context, /, directory: Path, **flags: Any) -> None:
    """Run Envoy from the files; restart it when it dies; on SIGTERM drain it."""
    process = envoy_process.Process(directory, log_format=form(context), **flags)
    asyncio.run(until_signal(lambda stop: envoy_process.supervise(process, stop)))


@main.command("agent")
@DIRECTORY
@KUBECONFIGS
@gateway_options
def run_agent(directory: Path, kubeconfigs: tuple[str, ...], **flags: Any) -> None:
    """Keep Envoy's files in line with the API servers."""
    options = read_options(flags)
    names = source_names(options, kubeconfigs)
    asyncio.run(until_signal(lambda stop: work(directory, options, names, stop)))


@main.command("relay")
@DIRECTORY
@gateway_options
@relay_options
@drain_option
def run_relay(directory: Path, **flags: Any) -> None:
    """Relay streams: continue them in another region when their engine is lost. On SIGTERM finish those that run."""
    config = relay_process.config(directory, flags, read_options(flags))
    relay_process.serve(config)


@main.command("limits")
@DIRECTORY
@gateway_options
@limiter_options
def run_limiter(directory: Path, **flags: Any) -> None:  # noqa: ARG001 - given what all commands of a gateway are given
    """Count tenants' requests for all gateways, in Redis; Envoy asks with each request, and goes on without it."""
    limiter_process.serve(flags, read_options(flags | {"auth": Auth.REQUIRED.value}))


@main.command("ledger")
@gateway_options
@ledger_options
@drain_option
def run_ledger(**flags: Any) -> None:
    """Ship a record of each request to where it is kept. On SIGTERM go on for as long as Envoy drains."""
    config = ledger_process.config(flags, read_options(flags))
    from holdfast_gateway.ledger.server import serve

    serve(config)


@main.command()
@DIRECTORY
@KUBECONFIGS
@gateway_options
@envoy_options
@relay_options
@limiter_options
@ledger_options
@drain_option
@click.pass_context
def run(context: click.Context, /, directory: Path, kubeconfigs: tuple[str, ...], **flags: Any) -> None:
    """Init, agent, Envoy, relay, limiter and ledger together, for a gateway that runs outside Kubernetes."""
    options = read_options(flags)
    os.environ["HOLDFAST_LOG_FORMAT"] = form(context)  # for the processes that this one starts
    companions = []
    if options.relay_port:
        companions.append(Companion("relay", relay_process.command(directory, flags)))
    if options.limits and flags["limits_store"]:
        companions.append(Companion("limiter", *limiter_process.command(directory, flags)))
    if options.ledger:
        ledger_process.check(flags, options)
        companions.append(Companion("ledger", *ledger_process.command(flags)))
    names = ("concurrency", "log_level", "settle", "drain")
    process_flags = {name: flags[name] for name in names}
    sources = source_names(options, kubeconfigs)
    process = envoy_process.Process(directory, admin_port=options.admin_port, log_format=form(context), **process_flags)
    initialise(directory, options)

    async def together(stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work(directory, options, sources, stop))
            tasks.create_task(envoy_process.supervise(process, stop))
            for companion in companions:
                tasks.create_task(supervise(companion, stop))

    asyncio.run(until_signal(together))


@main.command()
@click.option("--route", "routes", multiple=True, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--engine", "engines", multiple=True, metavar="NAMESPACE/SERVICE=IP", help="An engine in this region.")
@click.option("--dir", "directory", default="/var/lib/holdfast-gateway", show_default=True)
@gateway_options
def render(routes: tuple[Path, ...], engines: tuple[str, ...], directory: str, **flags: Any) -> None:
    """Print all of Envoy's files for given routes (JSON or YAML). Fails if two services claim one model."""
    options = read_options(flags)
    served, conflicts = one_service_per_model(Route.parse(yaml.safe_load(path.read_text())) for path in routes)
    found: dict[str, tuple[str, ...]] = {}
    for engine in engines:
        key, _, address = engine.partition("=")
        found[key] = (*found.get(key, ()), address)
    hosts = sorted(Snapshot(served).host_names())
    addresses = {host: asyncio.run(look_up(host)) for host in hosts}
    snapshot = Snapshot(served, found, addresses)
    for name, document in {**start_files(options, directory), **files(snapshot, options, directory)}.items():
        click.echo(f"--- # {directory}/{name}\n{to_yaml(document)}", nl=False)
    if conflicts:
        raise click.ClickException("; ".join(conflict.message for conflict in conflicts))


main.add_command(usage)


def form(context: click.Context) -> str:
    """How log lines shall look, also those of processes that this one starts."""
    return str(context.find_root().params["log_format"])


async def work(directory: Path, options: Options, names: tuple[str, ...], stop: asyncio.Event) -> None:
    """Runs the agent until `stop`."""
    changed = asyncio.Event()
    async with AsyncExitStack() as resources:
        clients = [await resources.enter_async_context(await api_client(name)) for name in names]
        sources = [
            source(name, client.CoreV1Api(api), options, changed) for name, api in zip(names, clients, strict=True)
        ]
        agent = Agent(directory, options, sources, changed)
        if options.status_port:
            runner = await status.serve(agent, options.listen, options.status_port)
            resources.push_async_callback(runner.cleanup)
        working = asyncio.create_task(agent.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
        working.cancel()


async def until_signal(job: Callable[[asyncio.Event], Any]) -> None:
    """Runs a job; SIGTERM and SIGINT ask it to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await job(stop)


def source_names(options: Options, kubeconfigs: tuple[str, ...]) -> tuple[str, ...]:
    """API servers to read, or a usage error."""
    try:
        return names_for(options.role, kubeconfigs)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
