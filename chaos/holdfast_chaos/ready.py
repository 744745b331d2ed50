"""Brings regions to where work on them can begin: up, Holdfast installed, the service serving in each.

The demo and the benchmarks start here. What is there already is left as it is, so a second time takes seconds.
"""

from __future__ import annotations

from pathlib import Path

from holdfast_testbed.install import install
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Testbed

from .errors import ServiceError
from .service import RegionalService, Service, wait_until_serving

REGIONS = 3
EXAMPLE = Path("examples") / "chat.yaml"


def default_service() -> Path:
    """The example in the source tree; ServiceError if this is not run from one."""
    for folder in Path(__file__).resolve().parents:
        if (folder / EXAMPLE).is_file():
            return folder / EXAMPLE
    raise ServiceError(f"There is no {EXAMPLE} above this package; name a service with --service.")


def bring_up(bed: Testbed, service: Service, progress: Progress) -> list[RegionalService]:
    """Regions, Holdfast in them, and the service serving in each."""
    bed.up(REGIONS)
    install(bed, progress)
    regions = regional(bed, service)
    with progress.step(f"applying the service {service.name} in {regions[0].region}"):
        regions[0].apply()
    wait_serving(regions, service, progress)
    return regions


def regional(bed: Testbed, service: Service) -> list[RegionalService]:
    """The service in each region of a testbed that is up."""
    return [RegionalService(region.name, region.kubeconfig, service) for region in bed.regions]


def wait_serving(regions: list[RegionalService], service: Service, progress: Progress) -> None:
    """Return when every region serves; ServiceError if one does not in time."""
    with progress.step(f"waiting until {service.name} serves in every region") as update:
        wait_until_serving(regions, update)
