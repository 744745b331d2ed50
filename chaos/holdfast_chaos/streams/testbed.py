"""Runs the streams' experiment on the testbed's regions, behind an edge gateway of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from holdfast_chaos.edge import Edge
from holdfast_chaos.ready import bring_up
from holdfast_chaos.service import read_service
from holdfast_chaos.streams.client import Streams
from holdfast_chaos.streams.experiment import Options, run
from holdfast_chaos.streams.report import Json, report
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Testbed


def run_on_testbed(options: Options, service_file: Path, name: str, progress: Progress) -> Json:
    """Bring up what is missing, run, and give the report; the regions stay up."""
    service = read_service(service_file)
    bed = Testbed(name, progress)
    regions = bring_up(bed, service, progress)
    with Edge([region.kubeconfig for region in bed.regions]) as edge:
        with progress.step("starting an edge gateway in front of all regions") as update:
            edge.wait_for_regions(service.model, [region.region for region in regions], update)
        streams = Streams(edge.url, service.model)
        return report(asyncio.run(run(streams, bed, options, progress.say)))
