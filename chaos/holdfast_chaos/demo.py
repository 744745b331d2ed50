"""A service in three real regions under load, in which one after the other fails and comes back; in the demo, one.

It brings up what is missing, so that a second demo begins within seconds, and ends every process it started; the
regions stay up unless asked otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Testbed

from .client import LoadSpec
from .edge import Edge
from .experiment import Plan, run_experiment
from .load_process import LoadProcess
from .measure import measure
from .ready import bring_up
from .records import Records
from .report import Run
from .service import RegionalService, Service, read_service
from .versions import read_versions
from .watch import LoadWatch


@dataclass(frozen=True)
class DemoOptions:
    """What the person who runs the demo chooses."""

    plan: Plan
    load: LoadSpec
    """Its URL and model are filled in by the demo."""
    service: Path
    bed: str
    keep: bool


def run_demo(options: DemoOptions, console: Console) -> tuple[Run, Records]:
    """Run the demo and return what it measured; progress goes to `console`."""
    service = read_service(options.service)
    progress = Progress(console)
    bed = Testbed(options.bed, progress)
    try:
        regions = bring_up(bed, service, progress)
        return _experiment(options, bed, service, regions, progress, console)
    finally:
        if not options.keep:
            bed.down()


def _experiment(
    options: DemoOptions,
    bed: Testbed,
    service: Service,
    regions: list[RegionalService],
    progress: Progress,
    console: Console,
) -> tuple[Run, Records]:
    versions = read_versions() | {region.region: region.version for region in regions}
    with Edge([region.kubeconfig for region in bed.regions]) as edge:
        with progress.step("starting an edge gateway in front of all regions") as update:
            edge.wait_for_regions(service.model, [region.region for region in regions], update)
        spec = replace(options.load, url=edge.url, model=service.model)
        started = datetime.now(UTC)
        progress.say(f"load: {spec.rate:g} requests/s and {spec.streams} streams for {spec.seconds:g} s")
        with LoadProcess(spec) as load, LoadWatch(console, load.records, spec.seconds) as watch:
            faults = run_experiment(load, options.plan, bed, watch, watch.say, spec.seconds)
            records = load.result()
            assert load.cost is not None
            cost = load.cost
    return Run(spec, measure(records, faults), cost, started, datetime.now(UTC), versions), records
