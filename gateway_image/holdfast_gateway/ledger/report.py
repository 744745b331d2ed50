"""`holdfast-gateway usage`: what the records of a folder or of a stream come to."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import click

from holdfast_gateway.ledger.record import Record, loaded, moment
from holdfast_gateway.ledger.sinks.file import PREFIX
from holdfast_gateway.ledger.sinks.places import folder
from holdfast_gateway.ledger.sinks.port import SinkUnavailable
from holdfast_gateway.ledger.totals import COLUMNS, By, Total, totals

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
DAY = re.compile(re.escape(PREFIX) + r"(\d{4}-\d\d-\d\d)-.*\.jsonl")
Groups = Mapping[tuple[str, ...], Total]


@click.command("usage")
@click.argument("place", metavar="PLACE")
@click.option(
    "--since",
    default="",
    metavar="WHEN",
    help="30m, 24h, 7d, or a time such as 2026-01-31 or 2026-01-31T12:00:00Z; default: all.",
)
@click.option(
    "--by", "by", default="tenant,model", show_default=True, metavar="WHAT,…", help=f"Any of {', '.join(By)}."
)
@click.option("-o", "--output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
def usage(place: str, since: str, by: str, output: str) -> None:
    """Add up the records at PLACE: a folder, or what the ledger's --sink names (file:///FOLDER, nats://HOST:4222/STREAM).
    A request counts once."""
    try:
        kinds = [By(name.strip()) for name in by.split(",")]
        start = when(since, datetime.now(UTC)) if since else None
        reader = Reader(source(place))
    except ValueError as error:
        raise click.UsageError(f"{error}; see --help") from error
    try:
        found = totals(reader.records(start), kinds)
    except SinkUnavailable as error:
        raise click.ClickException(str(error)) from error
    click.echo({"table": table, "json": as_json, "csv": as_csv}[output](kinds, found), nl=False)
    if reader.broken:
        click.echo(f"{reader.broken} lines are no records and were left out.", err=True)


Lines = Callable[[datetime | None], Iterator[bytes]]
"""The lines of a place, from those of a moment on; some elder ones may be among them."""


def source(place: str) -> Lines:
    """The lines at a place. Raises ValueError for an address that is none, click.ClickException for no folder."""
    if place.startswith(("nats:", "tls:")):
        from holdfast_gateway.ledger.sinks.nats import NatsReader  # nats-py: for these alone

        return NatsReader(place).lines
    path = folder(place) if place.startswith("file:") else Path(place)
    if not path.is_dir():
        raise click.ClickException(f"{path} is no folder: give the one that the ledger's --sink names")
    return partial(lines_of, path)


def lines_of(directory: Path, since: datetime | None) -> Iterator[bytes]:
    """The lines of a folder's files; a file holds no record that began after its day."""
    for path in sorted(directory.glob(f"{PREFIX}*.jsonl")):
        named = DAY.fullmatch(path.name)
        if named and since is not None and date.fromisoformat(named[1]) < since.date():
            continue
        with path.open("rb") as lines:
            yield from lines


class Reader:
    """The records of a place, as they came; `broken` lines are left out."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.broken = 0

    def records(self, since: datetime | None) -> Iterator[Record]:
        """Those that began at `since` or later."""
        for line in self._lines(since):
            record = self._record(line)
            if record is not None and (since is None or moment(record.time) >= since):
                yield record

    def _record(self, line: bytes) -> Record | None:
        try:
            return loaded(json.loads(line)) if line.strip() else None
        except (ValueError, RecursionError):
            self.broken += 1
            return None


def when(text: str, now: datetime) -> datetime:
    """A point in time, or so long ago. Raises ValueError."""
    if ago := re.fullmatch(r"(\d+)([mhd])", text):
        return now - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def table(by: Sequence[By], found: Groups) -> str:
    """For people."""
    if not found:
        return "No records.\n"
    header = [*(each.value.upper() for each in by), *(name.upper().replace("_", " ") for name in COLUMNS)]
    rows = [[*group, *("-" if value is None else f"{value:,}" for value in total.row().values())]
            for group, total in found.items()]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if number < len(by) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def as_json(by: Sequence[By], found: Groups) -> str:
    """A list with an object for each group."""
    return json.dumps([named(by, group) | total.row() for group, total in found.items()], indent=2) + "\n"


def as_csv(by: Sequence[By], found: Groups) -> str:
    """With a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*(each.value for each in by), *COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(named(by, group) | total.row() for group, total in found.items())
    return out.getvalue()


def named(by: Sequence[By], group: tuple[str, ...]) -> dict[str, int | str | None]:
    """A group's values by their names."""
    return {each.value: value for each, value in zip(by, group, strict=True)}
