"""The command line: `demo`, `requests`, `streams`, `load` against any OpenAI-compatible server, and `bench`."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console

from .bench import registry
from .client import LoadSpec
from .errors import ChaosError
from .experiment import Plan
from .load_process import LoadProcess
from .measure import measure
from .records import Records
from .report import Run, report_json, verdict
from .table import print_report
from .versions import read_versions
from .watch import LoadWatch

Command = Callable[..., Any]
DEFAULT = LoadSpec(url="", model="")
FOLDER = click.Path(file_okay=False, path_type=Path)
FAULTS = ("kill", "freeze", "cut")
POLL_SECONDS = 0.1
DEMO_SECONDS = 90.0
"""Long enough to see the region come back."""


class _Group(click.Group):
    """Turns expected errors into one sentence and exit code 1, and signals into an orderly end."""

    def invoke(self, context: click.Context) -> Any:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end)
        try:
            return super().invoke(context)
        except ChaosError as error:
            raise click.ClickException(str(error)) from error


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def load_options(seconds: float = DEFAULT.seconds) -> Callable[[Command], Command]:
    """The options that shape the load."""

    def add(command: Command) -> Command:
        for flag in reversed(_load_flags(seconds)):
            command = flag(command)
        return command

    return add


def _load_flags(seconds: float) -> list[Command]:
    return [
        click.option("--rate", default=DEFAULT.rate, show_default=True, type=click.FloatRange(0, min_open=True),
                     help="Requests per second, streams not counted."),
        click.option("--seconds", default=seconds, show_default=True, type=click.FloatRange(0, min_open=True)),
        click.option("--streams", default=DEFAULT.streams, show_default=True, type=click.IntRange(0),
                     help="Streams in flight at every moment."),
        click.option("--seed", default=DEFAULT.seed, show_default=True, help="The same seed sends the same load."),
        click.option("-o", "--output", default="table", show_default=True, type=click.Choice(["table", "json"]),
                     help="How the report is printed."),
    ]  # fmt: skip


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Load, faults and measurement: what the clients see when something dies."""


@main.command()
@click.option("--fault", "kind", default="kill", show_default=True, type=click.Choice(FAULTS),
              help="What happens to the region that serves most.")  # fmt: skip
@click.option("--fault-at", default=20.0, show_default=True, type=click.FloatRange(0), help="Seconds after the start.")
@click.option("--heal-at", default=40.0, show_default=True, type=click.FloatRange(0), help="Seconds after the start.")
@load_options(DEMO_SECONDS)
@click.option("--service", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The LLMService to apply; the project's example by default.")  # fmt: skip
@click.option("--name", default="holdfast", show_default=True, help="Which testbed.")
@click.option("--out", default="out/demo", show_default=True, type=FOLDER, help="Folder of the report's files.")
@click.option("--keep/--no-keep", default=True, show_default=True, help="Leave the regions up afterwards.")
def demo(
    kind: str, fault_at: float, heal_at: float, service: Path | None, name: str, out: Path, keep: bool,
    output: str, **load: Any,
) -> None:  # fmt: skip
    """Let one of three real regions fail under load and show what the clients saw.

    Exit code 0 when no request failed and no stream was cut.
    """
    if not fault_at < heal_at < load["seconds"]:
        raise click.UsageError("--fault-at must come before --heal-at, and that before the end (--seconds).")
    _run_regions(Plan((kind,), fault_at, heal_at - fault_at), load, service, name, out, output, keep)


@main.command()
@click.option(
    "--requests", "count", default=20_000, show_default=True, type=click.IntRange(1), help="How many, in all."
)
@click.option("--rate", default=DEFAULT.rate, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Requests per second, streams not counted.")  # fmt: skip
@click.option("--streams", default=DEFAULT.streams, show_default=True, type=click.IntRange(0),
              help="Streams in flight at every moment.")  # fmt: skip
@click.option("--fault", "faults", multiple=True, type=click.Choice(FAULTS),
              help="What happens to regions, in turn; repeatable; by default all three.")  # fmt: skip
@click.option("--lasts", default=10.0, show_default=True, type=click.FloatRange(0), help="Seconds until healing.")
@click.option("--pause", default=5.0, show_default=True, type=click.FloatRange(0),
              help="Seconds from the moment a region is well again to the next fault.")  # fmt: skip
@click.option("--seed", default=DEFAULT.seed, show_default=True, help="The same seed sends the same load.")
@click.option("--service", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The LLMService to apply; the project's example by default.")  # fmt: skip
@click.option("--name", default="holdfast", show_default=True, help="Which testbed.")
@click.option("--out", default="out/requests", show_default=True, type=FOLDER, help="Folder of the report's files.")
@click.option("-o", "--output", default="table", show_default=True, type=click.Choice(["table", "json"]))
def requests(
    count: int, rate: float, streams: int, faults: tuple[str, ...], lasts: float, pause: float, seed: int,
    service: Path | None, name: str, out: Path, output: str,
) -> None:  # fmt: skip
    """Let regions fail again and again under open-loop requests, and count what failed.

    Exit code 0 when no request failed and no stream was cut.
    """
    load = {"rate": rate, "seconds": count / rate, "streams": streams, "seed": seed}
    plan = Plan(faults or FAULTS, first=pause, lasts=lasts, pause=pause, again=True)
    _run_regions(plan, load, service, name, out, output, keep=True)


def _run_regions(
    plan: Plan, load: dict[str, Any], service: Path | None, name: str, out: Path, output: str, keep: bool
) -> None:
    """Run load and faults on the testbed, deliver the report, and exit by it."""
    from holdfast_testbed.errors import TestbedError

    from .demo import DemoOptions, run_demo
    from .ready import default_service

    spec = LoadSpec(url="", model="", **load)
    console = _progress_console()
    try:
        run, records = run_demo(DemoOptions(plan, spec, service or default_service(), name, keep), console)
    except TestbedError as error:
        raise click.ClickException(str(error)) from error
    _deliver(run, records, out, output)
    if keep:
        console.print("The regions are still up; `make testbed-down` takes them down.", markup=False)
    _exit_by(run)


@main.command()
@click.option("--url", required=True, help="An OpenAI-compatible server, such as http://127.0.0.1:8000.")
@click.option("--model", required=True, help="The model's name in requests.")
@load_options()
@click.option("--ignore-eos/--no-ignore-eos", default=True, show_default=True,
              help="Insist on an exact number of tokens; turn it off where that is not supported.")  # fmt: skip
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Sent with every request; repeatable.")
@click.option("--out", type=FOLDER, help="Write the report's files there.")
def load(headers: tuple[str, ...], out: Path | None, output: str, **flags: Any) -> None:
    """Send open-loop load to a server and report; exit code 1 if a request failed or a stream was cut."""
    spec = LoadSpec(headers=_headers(headers), **flags)
    started = datetime.now(UTC)
    with LoadProcess(spec) as process, LoadWatch(_progress_console(), process.records, spec.seconds) as watch:
        process.wait_begun()
        while process.running:
            watch(process.elapsed())
            time.sleep(POLL_SECONDS)
        records = process.result()
        assert process.cost is not None
        run = Run(spec, measure(records), process.cost, started, datetime.now(UTC), read_versions())
    _deliver(run, records, out, output)
    _exit_by(run)


@main.command()
@click.option("--only", multiple=True, type=click.Choice(registry.names()), help="Benchmarks to run; all by default.")
@click.option("--seconds", default=30.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="How long each benchmark measures.")  # fmt: skip
@click.option("--service", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The LLMService to apply; the project's example by default.")  # fmt: skip
@click.option("--name", default="holdfast", show_default=True, help="Which testbed.")
@click.option("--without", multiple=True, type=click.Choice(["litellm"]),
              help="A peer to leave out; it is installed under out/ where a benchmark compares with it.")  # fmt: skip
@click.option("--as-is", is_flag=True, help="Measure what the testbed runs now: start, install and apply nothing.")
@click.option("--out", default="out/bench", show_default=True, type=FOLDER, help="Folder of the JSON files.")
@click.option("-o", "--output", default="table", show_default=True, type=click.Choice(["table", "json"]))
def bench(
    only: tuple[str, ...], seconds: float, service: Path | None, name: str, without: tuple[str, ...], as_is: bool,
    out: Path, output: str,
) -> None:  # fmt: skip
    """Measure and print; one JSON file for each benchmark. Brings up regions for those that need them."""
    from holdfast_testbed.errors import TestbedError
    from holdfast_testbed.progress import Progress

    from .bench.report import print_outcome
    from .bench.runner import BenchOptions, run_benchmarks
    from .ready import default_service

    options = BenchOptions(name, service or default_service(), out, seconds, as_is, frozenset(without))
    benchmarks = registry.load(only or registry.names())
    written = {}
    try:
        for content, outcome in run_benchmarks(benchmarks, options, Progress(_progress_console())):
            written[content["name"]] = content
            if output == "table":
                print_outcome(outcome, _table_console())
    except TestbedError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        click.echo(json.dumps(written, indent=2))
    else:
        _table_console().print(f"The same as JSON: {out}/", markup=False, soft_wrap=True)


@main.command()
@click.option("--streams", default=1000, show_default=True, type=click.IntRange(1), help="How many, in all.")
@click.option("--in-flight", default=24, show_default=True, type=click.IntRange(1), help="How many at every moment.")
@click.option("--fault", "faults", multiple=True, type=click.Choice(FAULTS),
              help="What happens to regions, in turn; repeatable; by default all three.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="The same seed asks the same questions.")
@click.option("--service", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The LLMService to apply; the project's example by default.")  # fmt: skip
@click.option("--name", default="holdfast", show_default=True, help="Which testbed.")
@click.option("--out", default="out/streams", show_default=True, type=FOLDER, help="Folder of report.json.")
@click.option("-o", "--output", default="table", show_default=True, type=click.Choice(["table", "json"]))
def streams(service: Path | None, name: str, out: Path, output: str, **asked: Any) -> None:
    """Let regions fail again and again under streams, and compare every token with undisturbed answers.

    Exit code 0 when no stream lost a token or got one twice.
    """
    from holdfast_testbed.errors import TestbedError
    from holdfast_testbed.progress import Progress

    from .ready import default_service
    from .streams.experiment import Options
    from .streams.report import lines, passed
    from .streams.testbed import run_on_testbed

    faults = asked.pop("faults") or FAULTS
    try:
        content = run_on_testbed(
            Options(faults=faults, **asked), service or default_service(), name, Progress(_progress_console())
        )
    except TestbedError as error:
        raise click.ClickException(str(error)) from error
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(content, indent=2) + "\n")
    click.echo(json.dumps(content, indent=2) if output == "json" else "\n".join(lines(content)))
    if not passed(content):
        click.echo(f"Not passed: see {out}/report.json", err=True)
        sys.exit(1)


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for one in given:
        name, colon, value = one.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"--header {one!r} has no colon: use NAME:VALUE.")
        headers[name.strip()] = value.strip()
    return headers


def _progress_console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _table_console() -> Console:
    """Standard output, wide where nobody looks at it."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def _deliver(run: Run, records: Records, out: Path | None, output: str) -> None:
    """Print the report and write its files."""
    if out is not None:
        from .output import write_files  # matplotlib is slow to import

        write_files(run, records, out)
    if output == "json":
        click.echo(json.dumps(report_json(run), indent=2))
        return
    console = _table_console()
    print_report(run, console)
    if out is not None:
        console.print(f"Report, picture and records: {out}/", markup=False, soft_wrap=True)


def _exit_by(run: Run) -> None:
    """Exit code 1, with the reason, when a request failed or a stream was cut."""
    if not run.passed:
        click.echo(f"Not passed: {verdict(run)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
