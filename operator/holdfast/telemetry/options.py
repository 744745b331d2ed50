"""Command-line options of telemetry, alike wherever they are, and the tracing that they ask for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import click

from holdfast.telemetry.endpoint import parse_endpoint
from holdfast.telemetry.logs import LogFormat
from holdfast.telemetry.spans import OFF, Tracing

log = logging.getLogger(__name__)
Command = Callable[..., Any]
SAMPLING = 1.0
"""Percent of the traces that begin here, by default."""


def log_format(*variables: str) -> Callable[[Command], Command]:
    """How log lines look; `variables` are the environment variables that say it as well."""
    forms = [form.value for form in LogFormat]
    return click.option(
        "--log-format", type=click.Choice(forms), default=LogFormat.TEXT.value, show_default=True, envvar=variables,
        help="Of log lines.",
    )  # fmt: skip


def tracing_options(*prefixes: str) -> list[Callable[[Command], Command]]:
    """Where spans of requests go, and of how many; `prefixes` are those of the environment variables."""
    return [
        click.option(
            "--otlp-endpoint", default="", metavar="URL", callback=_checked,
            envvar=[f"{each}_OTLP_ENDPOINT" for each in prefixes],
            help="Collector of spans (OTLP over HTTP), such as http://otel-collector:4318; default: none.",
        ),
        click.option(
            "--trace-sampling", default=SAMPLING, show_default=True, metavar="PERCENT", type=click.FloatRange(0, 100),
            envvar=[f"{each}_TRACE_SAMPLING" for each in prefixes],
            help="Of requests without a traceparent; where there is one, it decides.",
        ),
    ]  # fmt: skip


def _checked(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        if value:
            parse_endpoint(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


def tracing(
    endpoint: str, percent: float, sender: str, attributes: str = "", dropped: Callable[[int], object] = lambda _: None
) -> Tracing:
    """What `--otlp-endpoint` and `--trace-sampling` ask for; see `export.exported`.

    Where the packages for it are missing, the log says so and there are no spans: requests matter more.
    """
    if not endpoint:
        return OFF
    try:
        from holdfast.telemetry.export import exported  # a second to import, and of an extra
    except ImportError as error:
        log.error("no spans, as --otlp-endpoint needs more packages: pip install 'holdfast[tracing]' (%s)", error)
        return OFF
    return exported(endpoint, percent, sender, attributes, dropped)
