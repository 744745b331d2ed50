"""The command line `holdfast-testbed`: thin, everything it does is in `testbed` and `images`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from .addresses import MAX_REGIONS
from .errors import TestbedError
from .images.build import build_images
from .progress import Progress
from .provider import FaultKind, RegionStatus
from .state import DEFAULT_NAME
from .testbed import PROVIDERS, Testbed

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """Turns the package's own errors into one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TestbedError as error:
            raise click.ClickException(str(error)) from error


def _name(command: F) -> F:
    option = click.option(
        "--name", default=DEFAULT_NAME, show_default=True, help="Which testbed; they stand side by side."
    )
    return option(command)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Real multi-region Kubernetes on one machine."""


@main.command()
@_name
@click.option("--regions", default=3, show_default=True, type=click.IntRange(1, MAX_REGIONS))
@click.option("--control-plane-only", is_flag=True, help="API servers without nodes; starts in seconds.")
@click.option("--provider", default="auto", show_default=True, type=click.Choice(PROVIDERS))
def up(name: str, regions: int, control_plane_only: bool, provider: str) -> None:
    """Start the regions, or what of them is missing; heals all faults."""
    bed = Testbed(name, Progress())
    bed.up(regions, control_plane_only=control_plane_only, provider=provider)
    _print_table(bed)


@main.command()
@_name
def down(name: str) -> None:
    """Remove the regions and all they left on this machine."""
    if not Testbed(name, Progress()).down():
        click.echo(f"There is no testbed {name}.")


@main.command()
@_name
@click.option("-o", "--output", default="table", show_default=True, type=click.Choice(["table", "json"]))
def status(name: str, output: str) -> None:
    """Show every region; exit code 1 if one is not well."""
    bed = Testbed(name)
    seen = bed.status()
    if output == "json":
        click.echo(json.dumps([_as_json(region) for region in seen], indent=2))
    else:
        _print_table(bed, seen)
    if not seen or not all(region.healthy for region in seen):
        raise SystemExit(1)


@main.command()
@_name
@click.argument("region")
@click.option("--raw", is_flag=True, help="Print the content instead of the path.")
def kubeconfig(name: str, region: str, raw: bool) -> None:
    """Print the path of a region's administrator's kubeconfig."""
    path = Testbed(name).kubeconfig(region)
    click.echo(path.read_text() if raw else str(path), nl=not raw)


@main.command("load-image")
@_name
@click.option("--region", "regions", multiple=True, help="Only this region; may be repeated.")
@click.argument("archives", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load_image(name: str, regions: tuple[str, ...], archives: tuple[Path, ...]) -> None:
    """Load docker archives into the regions; images that are there already are skipped."""
    Testbed(name, Progress()).load_images(archives, regions or None)


@main.command("build-images")
@click.option("--source", default=None, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="The project's folder; found from here by default.")  # fmt: skip
@click.argument("images", nargs=-1)
def build_images_command(source: Path | None, images: tuple[str, ...]) -> None:
    """Build the images (operator, engine, gateway; all by default) and print the paths of their archives."""
    for archive in build_images(images or None, source=source, progress=Progress()):
        click.echo(str(archive))


@main.command()
@_name
@click.option("--source", default=None, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="The project's folder; found from here by default.")  # fmt: skip
def install(name: str, source: Path | None) -> None:
    """Bring the project's Holdfast into every region: images, Helm chart, Region objects."""
    # Helm's library takes a moment to load, which the other commands need not wait for.
    from .install import install as install_everywhere

    progress = Progress()
    install_everywhere(Testbed(name, progress), progress, source=source)


@main.command()
@_name
@click.argument("kind", type=click.Choice([*(str(kind) for kind in FaultKind), "heal"]))
@click.argument("region")
@click.option(
    "--delay-ms",
    default=100,
    show_default=True,
    type=click.IntRange(1, 60_000),
    help="For `delay`: what each packet takes longer.",
)
def fault(name: str, kind: str, region: str, delay_ms: int) -> None:
    """Kill, freeze, cut off or put away a region; `heal` undoes all of it."""
    bed = Testbed(name, Progress())
    if kind == "heal":
        bed.heal(region)
    else:
        bed.fault(kind, region, delay_ms=delay_ms if kind == FaultKind.DELAY else 0)
        click.echo(f"{region}: {kind}; undo it with `holdfast-testbed fault heal {region}`.")


def _print_table(bed: Testbed, seen: tuple[RegionStatus, ...] | None = None) -> None:
    regions = bed.status() if seen is None else seen
    if not regions:
        click.echo(f"There is no testbed {bed.name}; start it with `holdfast-testbed up`.")
        return
    table = Table(box=None, header_style="bold")
    for heading in ("REGION", "ADDRESS", "API", "NODE", "FAULTS", "NOT RUNNING"):
        table.add_column(heading, overflow="fold")
    for region in regions:
        node = {None: "-", True: "Ready", False: "NotReady"}[region.node_ready]
        stopped = ", ".join(part for part, runs in region.components.items() if not runs) or "-"
        faults = ", ".join(map(str, region.faults)) or "-"
        table.add_row(region.name, region.address, "Ready" if region.api_ready else "no answer", node, faults, stopped)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    name = "" if bed.name == DEFAULT_NAME else f" --name {bed.name}"
    click.echo(f"kubectl: export KUBECONFIG=$(holdfast-testbed kubeconfig{name} {regions[0].name})")


def _as_json(region: RegionStatus) -> dict[str, Any]:
    return {
        "name": region.name,
        "address": region.address,
        "kubeconfig": str(region.kubeconfig),
        "healthy": region.healthy,
        "apiReady": region.api_ready,
        "nodeReady": region.node_ready,
        "faults": [{"kind": str(fault.kind), "delayMs": fault.delay_ms} for fault in region.faults],
        "components": region.components,
    }


if __name__ == "__main__":
    main()
