"""The demo: a service in three real regions under load, one of which fails and comes back.

It brings up what is missing, so that a second demo begins within seconds, and ends every process it started; the
regions stay up unless asked otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from holdfast_testbed.install import install
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Testbed

from .client import LoadSpec
from .edge import Edge
from .errors import ServiceError
from .experiment import Plan, run_experiment
from .load_process import LoadProcess
from .measure import measure
from .records import Records
from .report import Run
from .service import RegionalService, Service, read_service, wait_until_serving
from .versions import read_versions
from .watch import LoadWatch

REGIONS = 3
EXAMPLE = Path("examples") / "chat.yaml"


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
        regions = _prepare(bed, service, progress)
        return _experiment(options, bed, service, regions, progress, console)
    finally:
        if not options.keep:
            bed.down()


def default_service() -> Path:
    """The example in the source tree; ServiceError if this is not run from one."""
    for folder in Path(__file__).resolve().parents:
        if (folder / EXAMPLE).is_file():
            return folder / EXAMPLE
    raise ServiceError(f"There is no {EXAMPLE} above this package; name a service with --service.")


def _prepare(bed: Testbed, service: Service, progress: Progress) -> list[RegionalService]:
    """Regions, Holdfast in them, and the service serving in each."""
    bed.up(REGIONS)
    install(bed, progress)
    regions = [RegionalService(region.name, region.kubeconfig, service) for region in bed.regions]
    with progress.step(f"applying the service {service.name} in {len(regions)} regions"):
        for region in regions:
            region.apply()
    with progress.step(f"waiting until {service.name} serves in every region") as update:
        wait_until_serving(regions, update)
    return regions


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
            fault = run_experiment(load, options.plan, bed, watch, watch.say)
            records = load.result()
            assert load.cost is not None
            cost = load.cost
    return Run(spec, fault, measure(records, fault), cost, started, datetime.now(UTC), versions), records
