"""`kubectl holdfast`: what the regions do and why, and orders to the leader.

kubectl finds the program `kubectl-holdfast` on the path.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import yaml

from holdfast.api.schema import format_duration, parse_duration
from holdfast.cli import columns, events, order, show
from holdfast.cli.fleet import Fleet, is_witness, refusals
from holdfast.cli.observe import Observer
from holdfast.cli.order import Outcome
from holdfast.cli.server import Forbidden, Server, current_namespace, path
from holdfast.errors import ClusterError, HoldfastError

MANAGER = "kubectl-holdfast"
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Options:
    """What every command takes."""

    kubeconfig: Path | None
    context: str | None
    namespace: str | None
    everywhere: bool
    output: str

    def chosen(self) -> str | None:
        """The namespace to look into; None for all."""
        return None if self.everywhere else self.namespace or current_namespace(self.kubeconfig, self.context)

    def server(self) -> Server:
        """The cluster that the kubeconfig names."""
        return Server.open(self.context or "cluster", self.kubeconfig, self.context)

    def write(self, lines: Callable[[], list[str]], data: Callable[[], Any]) -> None:
        """Print the answer in the form that was asked for."""
        if self.output == "table":
            click.echo("\n".join(lines()))
        elif self.output == "json":
            click.echo(json.dumps(data(), indent=2, ensure_ascii=False))
        else:
            click.echo(yaml.safe_dump(data(), sort_keys=False, allow_unicode=True, width=110), nl=False)


class _Text(click.types.StringParamType):
    """A value that may also be written as kubectl takes it: `-n=default`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(str(value).removeprefix("="), param, ctx)


class _Choice(click.Choice[str]):
    """The same for a choice: `-o=json`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(str(value).removeprefix("="), param, ctx)


Command = Callable[..., None]


def options(command: Command) -> Command:
    """Adds what every command takes; hands it over as one `Options`."""

    def wrapped(
        kubeconfig: Path | None, context: str | None, namespace: str | None, everywhere: bool, output: str, **rest: Any
    ) -> None:
        command(Options(kubeconfig, context, namespace, everywhere, output), **rest)

    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    wrapped.__dict__.update(command.__dict__)  # click collects the options of later decorators there
    for option in (
        click.option("-o", "--output", type=_Choice(["table", "json", "yaml"]), default="table", help="What to print."),
        click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Services of every namespace."),
        click.option("-n", "--namespace", type=_Text(), help="Services of this namespace; else that of the context."),
        click.option("--context", help="Context in the kubeconfig."),
        click.option("--kubeconfig", type=click.Path(path_type=Path), help="As for kubectl."),
    ):
        wrapped = option(wrapped)
    return wrapped


@contextmanager
def _observing(chosen: Options) -> Iterator[Observer]:
    observer = None
    try:
        observer = Observer(chosen.server())
        yield observer
    except HoldfastError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if observer:
            observer.close()


@click.group(context_settings={"auto_envvar_prefix": "HOLDFAST", "show_default": True})
@click.version_option(package_name="holdfast")
def main() -> None:
    """Look at Holdfast's regions and services, and move traffic."""


@main.command()
@options
def status(chosen: Options) -> None:
    """Regions and services: who leads, who sees what, where traffic goes, and why."""
    with _observing(chosen) as observer:
        fleet = observer.observe()
        services = fleet.services(chosen.chosen())
        chosen.write(
            lambda: [*show.status_text(fleet, services), *_nothing(fleet, chosen, services)],
            lambda: show.status_data(fleet, services),
        )


@main.command()
@click.argument("service", required=False)
@options
def plan(chosen: Options, service: str | None) -> None:
    """The plans in force: what each region is to run and route."""
    with _observing(chosen) as observer:
        fleet = observer.observe()
        services = [each for each in fleet.services(chosen.chosen()) if service in (None, each.partition("/")[2])]
        if service and not services:
            raise click.ClickException(f"There is no service {service} in {chosen.chosen() or 'any namespace'}.")
        chosen.write(
            lambda: _nothing(fleet, chosen, services) or show.plan_text(fleet, services),
            lambda: show.plan_data(fleet, services),
        )


def _nothing(fleet: Fleet, chosen: Options, services: list[str]) -> list[str]:
    """A hint instead of an empty answer."""
    if services:
        return []
    elsewhere = len(fleet.services())
    hint = f"; -A shows the {elsewhere} of all namespaces" if elsewhere else ""
    return ["", f"No services{f' in namespace {chosen.chosen()}' if chosen.chosen() else ''}{hint}."]


@main.command("events")
@options
def events_(chosen: Options) -> None:
    """What happened to services and regions, the latest last."""
    try:
        server = chosen.server()
        try:
            found = events.read(server, chosen.chosen())
        finally:
            server.close()
    except HoldfastError as error:
        raise click.ClickException(str(error)) from error
    chosen.write(lambda: events.text(found), lambda: events.data(found))


def order_options(command: Command) -> Command:
    """What every order takes beside `options`."""
    for option in (
        click.option("--timeout", metavar="DURATION", help="Longest time to wait, for example 90s or 5m."),
        click.option("--wait", is_flag=True, help="Until it is done; exit code 1 if it is refused or takes too long."),
        click.argument("region"),
    ):
        command = option(command)
    return command


override_option = click.option(
    "--override", is_flag=True, help="Even beyond maxDrainedFraction; never the last region."
)


@main.command()
@order_options
@override_option
@options
def drain(chosen: Options, region: str, override: bool, wait: bool, timeout: str | None) -> None:
    """Move all traffic away from a region; what runs there finishes. The leader refuses what is not allowed."""
    _order(chosen, region, drain=True, override=override, wait=wait, timeout=timeout)


@main.command()
@order_options
@options
def undrain(chosen: Options, region: str, wait: bool, timeout: str | None) -> None:
    """Give a region its traffic back, step by step."""
    _order(chosen, region, drain=False, override=False, wait=wait, timeout=timeout)


@main.command()
@order_options
@override_option
@options
def failover(chosen: Options, region: str, override: bool, wait: bool, timeout: str | None) -> None:
    """Drain a region, unless that would be refused: then nothing is ordered, and the reason is printed."""
    _order(chosen, region, drain=True, override=override, wait=wait, timeout=timeout, ask_first=True)


def _order(
    chosen: Options,
    region: str,
    *,
    drain: bool,
    override: bool,
    wait: bool,
    timeout: str | None,
    ask_first: bool = False,
) -> None:
    limit = _timeout(timeout)
    with _observing(chosen) as observer:
        fleet = observer.observe()
        _check(fleet, region, drain)
        if ask_first and (refused := refusals(fleet, region, override)):
            reasons = " ".join(f"{service}: {sentence}" for service, sentence in refused.items())
            raise click.ClickException(f"Nothing was ordered, as it would be refused. {reasons}")
        patch = {"metadata": {"annotations": order.annotate(fleet, region, drain, override)}}
        try:
            observer.server.merge(path("Region", name=region), patch, MANAGER)
        except Forbidden as error:
            raise click.ClickException(f"{error} You need the right to patch regions.") from error
        word = "drain" if drain else "undrain"
        _say(f"Ordered: {word} {region}{', override' if override else ''}.")
        for sentence in (*fleet.unread.values(), *order.in_the_way(fleet, region, drain)):
            _say(sentence)
        results = _wait(observer, fleet, region, drain, limit) if wait else order.progress(fleet, region, drain, {}, 0)
        told = {"region": region, "order": word, "override": override, "waited": wait}
        services = [
            {"service": each.service, "outcome": str(each.outcome), "message": each.message} for each in results
        ]
        chosen.write(lambda: _order_text(region, results, wait, drain), lambda: {**told, "services": services})
        if wait and any(each.outcome is not Outcome.DONE for each in results):
            raise SystemExit(1)


def _check(fleet: Fleet, region: str, drain: bool) -> None:
    if region not in fleet.regions:
        known = ", ".join(fleet.regions) or "none"
        raise click.ClickException(f"There is no region {region}; this cluster knows: {known}.")
    if drain and is_witness(fleet, region):
        raise click.ClickException(f"{region} is a witness: it has no traffic to move away.")


def _timeout(text: str | None) -> timedelta | None:
    try:
        return parse_duration(text) if text else None
    except ValueError as error:
        raise click.UsageError(f"--timeout: {error}") from error


def _wait(observer: Observer, before: Fleet, region: str, drain: bool, limit: timedelta | None) -> list[order.Progress]:
    """Poll until every service is done or refused, saying what changes; what is the case in the end."""
    generations = order.plan_generations(before)
    most = limit or order.patience(before, region, drain)
    begun = time.monotonic()
    said: dict[str, str] = {}
    results: list[order.Progress] = []

    def say(about: str, message: str, waited: float) -> None:
        if said.get(about) != message:
            said[about] = message
            _say(f"{waited:6.1f} s  {message}")

    while True:
        waited = time.monotonic() - begun
        try:
            results = order.progress(observer.observe(), region, drain, generations, waited)
        except ClusterError as error:  # a region that is drained may well be one that does not answer
            say("", str(error), waited)
        else:
            for each in results:
                say(each.service, each.message, waited)
            if all(each.outcome is not Outcome.WAITING for each in results):
                return results
        if waited >= most.total_seconds():
            _say(f"Not done within {format_duration(most)}; the order stands.")
            return results
        time.sleep(POLL_SECONDS)


def _order_text(region: str, results: list[order.Progress], waited: bool, drain: bool) -> list[str]:
    if not results:
        return [f"No service runs in {region} now; the order holds for those to come."]
    if not waited:
        return ["`kubectl holdfast status` shows what the leader makes of it."]
    lines = [line for each in results if each.outcome is not Outcome.DONE for line in columns.paragraph(each.message)]
    if not lines:
        return [f"Done: {region} {'has no traffic' if drain else 'has its whole share'} in {_services(len(results))}."]
    if any(each.outcome is Outcome.REFUSED for each in results):
        back = f"`kubectl holdfast undrain {region}` takes it back"
        lines.append(f"The order stands and is carried out as soon as it is allowed; {back}.")
    return lines


def _services(count: int) -> str:
    return "1 service" if count == 1 else f"{count} services"


def _say(line: str) -> None:
    """Progress goes beside the answer."""
    click.echo(line, err=True)
