"""Draws a run as a picture: who answered each second, what failed, and how long answers took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .measure import UNNAMED, Fault, Second
from .records import StreamOutcome
from .report import Run, verdict

REGION_COLOURS = ("#3b6fb6", "#3fa796", "#e0a83e", "#8a6fb0", "#7d9150", "#b5738e")
UNNAMED_COLOUR = "#a0a7b0"
FAILED, CUT, SLOW, TYPICAL = "#c62f2f", "#e8743b", "#33415c", "#8b98ae"
INK, FAINT, SHADE = "#27303f", "#d9dee6", "#f3e3e1"
GAPLESS = 200
"""Bars from which on gaps between them would only flicker."""
SIZE_INCHES, DPI = (11.0, 7.2), 140


def draw_timeline(run: Run, path: Path) -> None:
    """Write the picture of a run as a PNG file."""
    seconds = [second for second in run.measured.timeline if second.second < run.spec.seconds]
    style: Any = {"font.size": 9.5, "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK,
             "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": FAINT}  # fmt: skip
    with pyplot.rc_context(style):
        figure, (served, failed, latency) = pyplot.subplots(
            3, 1, sharex=True, figsize=SIZE_INCHES, height_ratios=(3.2, 1.3, 2.0), gridspec_kw={"hspace": 0.14}
        )
        _draw_served(served, seconds, run)
        _draw_failed(failed, run.measured.timeline, run.spec.seconds)
        _draw_latency(latency, seconds)
        for axes in (served, failed, latency):
            _finish(axes, run)
        _label_faults(served, _faults(run))
        latency.set_xlabel("seconds since the load's start")
        figure.align_ylabels()
        figure.suptitle(verdict(run), x=0.075, y=0.977, ha="left", fontsize=12, fontweight="bold")
        figure.text(0.075, 0.925, _subtitle(run), ha="left", va="center", color=SLOW)
        figure.subplots_adjust(left=0.075, right=0.85, top=0.895, bottom=0.075)
        figure.savefig(path, dpi=DPI)
        pyplot.close(figure)


def _subtitle(run: Run) -> str:
    load = f"{run.spec.rate:g} requests per second and {run.spec.streams} streams in flight"
    if not run.measured.recoveries:
        return load
    return f"{load}; RTO " + ("not reached" if run.measured.rto is None else f"{run.measured.rto:.2f} s")


def _draw_served(axes: Any, seconds: Sequence[Second], run: Run) -> None:
    """Requests a second, stacked by region; what failed is on top, so that the height is what was sent."""
    moments = [second.second for second in seconds]
    floor = [0.0] * len(seconds)
    for name, colour in zip(run.measured.regions, _colours(list(run.measured.regions)), strict=True):
        heights = [float(second.ok.get(name, 0)) for second in seconds]
        _bars(axes, moments, heights, floor, colour, name)
        floor = [below + height for below, height in zip(floor, heights, strict=True)]
    failed = [float(second.failed) for second in seconds]
    if any(failed):
        _bars(axes, moments, failed, floor, FAILED, "failed")
    axes.set_ylabel("requests per second")
    axes.set_ylim(0, run.spec.rate * (1.3 if len(run.measured.recoveries) < 2 else 1.5))
    _legend(axes, "answered by")


def _draw_failed(axes: Any, seconds: Sequence[Second], end: float) -> None:
    """Failed requests, and streams that were cut or never began, in the second of each."""
    shown = [second for second in seconds if second.second < end]
    moments = [second.second for second in shown]
    failed = [float(second.failed) for second in shown]
    cut = [float(second.streams[StreamOutcome.TRUNCATED]) for second in shown]
    refused = [float(second.streams[StreamOutcome.FAILED]) for second in shown]
    _bars(axes, moments, failed, [0.0] * len(shown), FAILED, "failed requests")
    _bars(axes, moments, cut, failed, CUT, "cut streams")
    if any(refused):
        floor = [one + other for one, other in zip(failed, cut, strict=True)]
        _bars(axes, moments, refused, floor, UNNAMED_COLOUR, "streams never begun")
    axes.set_ylabel("failures")
    axes.set_ylim(0, max(4.0, 1.25 * max(map(sum, zip(failed, cut, refused, strict=True)), default=0.0)))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _legend(axes, None)


def _draw_latency(axes: Any, seconds: Sequence[Second]) -> None:
    """Latency of the answers to the requests of each second, from their scheduled moment."""
    middle = [second.second + 0.5 for second in seconds]
    slow = [_seconds(second.latency.p99) for second in seconds]
    axes.plot(middle, slow, color=SLOW, linewidth=1.8, label="p99")
    typical = [_seconds(second.latency.p50) for second in seconds]
    axes.plot(middle, typical, color=TYPICAL, linewidth=1.4, label="p50")
    axes.set_ylabel("latency")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
    _legend(axes, None)


def _bars(axes: Any, moments: list[int], heights: list[float], floor: list[float], colour: str, name: str) -> None:
    width = 0.92 if len(moments) < GAPLESS else 1.0
    axes.bar(moments, heights, width=width, bottom=floor, align="edge", color=colour, label=name, linewidth=0)


def _legend(axes: Any, title: str | None) -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        title=title, loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, alignment="left", handlelength=1.1
    )


def _finish(axes: Any, run: Run) -> None:
    """What all panels share: the fault's time shaded, quiet lines."""
    axes.set_xlim(0, run.spec.seconds)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    for fault in _faults(run):
        end = min(fault.heal_asked, run.spec.seconds)
        axes.axvspan(fault.asked, end, color=SHADE, zorder=0, linewidth=0)
        for moment in _marks(fault) if len(run.measured.recoveries) == 1 else ():
            if moment <= run.spec.seconds:
                axes.axvline(moment, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))


def _faults(run: Run) -> list[Fault]:
    return [recovery.fault for recovery in run.measured.recoveries]


def _marks(fault: Fault) -> list[float]:
    """Moments that get a line."""
    return [fault.asked, fault.heal_asked, *([] if fault.heal_done is None else [fault.heal_done])]


def _label_faults(axes: Any, faults: Sequence[Fault]) -> None:
    """What happened, and of a single fault also when it was healed; upright where there are several."""
    labels = [(fault.asked, f"{fault.kind} {fault.region}") for fault in faults]
    if len(faults) == 1:
        labels += list(zip(_marks(faults[0])[1:], ["heal", "healed"], strict=False))
    many = len(faults) > 1
    end = axes.get_xlim()[1]
    for moment, text in labels:
        if moment <= end:
            axes.annotate(
                text, (moment, 1.0), xycoords=("data", "axes fraction"), xytext=(2 if many else 4, -2),
                textcoords="offset points", ha="left", va="top", fontsize=7.5 if many else 9, fontweight="bold",
                rotation=90 if many else 0,
            )  # fmt: skip


def _colours(names: Sequence[str]) -> list[str]:
    """A colour for each region; the same region has the same colour in every picture with the same regions."""
    return [
        UNNAMED_COLOUR if name == UNNAMED else REGION_COLOURS[i % len(REGION_COLOURS)] for i, name in enumerate(names)
    ]


def _seconds(milliseconds: float | None) -> float:
    """For drawing: a gap in the line where nothing was answered."""
    return float("nan") if milliseconds is None else milliseconds / 1000
