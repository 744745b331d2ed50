"""The `holdfast` command: run the operator, and print what is built into it."""

from __future__ import annotations

import asyncio
import logging

import click
import yaml

from holdfast.api.crd import DEFINITIONS, definition
from holdfast.config import Config, parse_engine_images
from holdfast.errors import HoldfastError


@click.group(context_settings={"auto_envvar_prefix": "HOLDFAST", "show_default": True})
@click.version_option(package_name="holdfast")
def main() -> None:
    """Holdfast: high-availability, multi-region LLM serving on Kubernetes."""


@main.command()
def crds() -> None:
    """Print the CustomResourceDefinitions, ready for `kubectl apply -f -`."""
    documents = [definition(each) for each in DEFINITIONS]
    click.echo(yaml.safe_dump_all(documents, sort_keys=False, width=110), nl=False)


@main.command()
@click.option("--region", required=True, help="Name of the Region that this cluster is.")
@click.option("--kubeconfig", help="Reach the API server by this file; else as the Pod's ServiceAccount.")
@click.option(
    "--engine-image",
    "engine_images",
    multiple=True,
    metavar="TYPE=IMAGE",
    help="Default image of an engine type.",
)
@click.option("--image-pull-policy", default="IfNotPresent", help="Pull policy of engines.")
@click.option("--resync-seconds", default=300.0, help="Look at every service again after this time.")
@click.option("--metrics-port", default=9090, help="Port of /metrics; 0 serves none.")
@click.option("--health-port", default=8090, help="Port of /healthz; 0 serves none.")
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]))
def operator(
    region: str,
    kubeconfig: str | None,
    engine_images: tuple[str, ...],
    image_pull_policy: str,
    resync_seconds: float,
    metrics_port: int,
    health_port: int,
    log_level: str,
) -> None:
    """Run the operator of one region."""
    # kopf and the Kubernetes client take a second to import, which the other commands need not wait for.
    from holdfast.process import run

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    try:
        config = Config(
            region=region,
            engine_images=parse_engine_images(engine_images),
            image_pull_policy=image_pull_policy,
            resync_seconds=resync_seconds,
            metrics_port=metrics_port,
            health_port=health_port,
        )
        asyncio.run(run(config, kubeconfig))
    except HoldfastError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
