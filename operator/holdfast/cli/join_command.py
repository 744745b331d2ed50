"""The command `holdfast region join`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import click

from holdfast.api.region import RegionRole
from holdfast.errors import HoldfastError


@click.group()
def region() -> None:
    """Regions: the clusters that serve together."""


@region.command("join")
@click.option("--region", "name", required=True, metavar="NAME", help="Region of the first cluster.")
@click.option("--kubeconfig", required=True, type=click.Path(path_type=Path), metavar="FILE", help="How to reach it.")
@click.option("--context", help="Context in that file.")
@click.option("--peer", "peers", multiple=True, metavar="NAME=FILE[#CONTEXT]", help="Another cluster; repeat.")
@click.option(
    "--gateway-address", "addresses", multiple=True, metavar="NAME=ADDRESS", help="Where its gateway answers."
)
@click.option("--server", "servers", multiple=True, metavar="NAME=URL", help="Where others reach its API server.")
@click.option("--role", "roles", multiple=True, metavar="[NAME=]ROLE", help="Serving or Witness.")
@click.option("--rotate", is_flag=True, help="Issue new tokens; remove the old ones at the end.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="What to print.")
def join_(
    name: str,
    kubeconfig: Path,
    context: str | None,
    peers: tuple[str, ...],
    addresses: tuple[str, ...],
    servers: tuple[str, ...],
    roles: tuple[str, ...],
    rotate: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Join clusters to each other, so that their operators decide together.

    Every cluster named becomes able to read every other one. Joining again changes nothing.
    """
    from holdfast.cli.join import Cluster, join  # the Kubernetes client takes a while to import

    files = {name: (kubeconfig, context), **_peers(peers, name)}
    given = {
        "gateway_address": _pairs("--gateway-address", addresses, files),
        "server": _pairs("--server", servers, files),
        "role": _pairs("--role", (each if "=" in each else f"{name}={each}" for each in roles), files),
    }
    clusters = [
        Cluster(
            each,
            file,
            chosen,
            gateway_address=given["gateway_address"].get(each),
            server=given["server"].get(each),
            role=_role(given["role"].get(each)),
        )
        for each, (file, chosen) in files.items()
    ]
    try:
        steps = join(
            clusters, rotate=rotate, dry_run=dry_run, report=lambda line: click.echo(line, err=output == "json")
        )
    except HoldfastError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        click.echo(json.dumps({"dryRun": dry_run, "steps": [dataclasses.asdict(each) for each in steps]}, indent=2))
    elif dry_run:
        click.echo("Nothing was written.")


def _peers(peers: Iterable[str], first: str) -> dict[str, tuple[Path, str | None]]:
    files: dict[str, tuple[Path, str | None]] = {}
    for pair in peers:
        name, separator, rest = pair.partition("=")
        file, _, context = rest.partition("#")
        if not (separator and name and file):
            raise click.UsageError(f"--peer {pair!r} is not of the form NAME=FILE or NAME=FILE#CONTEXT.")
        if name in files or name == first:
            raise click.UsageError(f"--peer: {name} is named twice.")
        files[name] = (Path(file).expanduser(), context or None)
    return files


def _pairs(option: str, pairs: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not (separator and value):
            raise click.UsageError(f"{option} {pair!r} is not of the form NAME=VALUE.")
        if name not in known:
            raise click.UsageError(f"{option} {pair!r}: {name} is neither --region nor a --peer.")
        found[name] = value
    return found


def _role(word: str | None) -> RegionRole | None:
    if word is None:
        return None
    by_name = {str(each).lower(): each for each in RegionRole}
    if word.lower() not in by_name:
        raise click.UsageError(f"--role {word!r} is neither Serving nor Witness.")
    return by_name[word.lower()]
