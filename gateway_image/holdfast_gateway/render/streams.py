"""What the relay is told: for each service the regions that may continue its streams, in order."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.api.route import Route
from holdfast_gateway.options import Options
from holdfast_gateway.render.endpoints import hops_in_order
from holdfast_gateway.render.values import Document
from holdfast_gateway.state import Snapshot

STREAMS = "streams.yaml"


def streams(routes: Sequence[Route], snapshot: Snapshot, options: Options) -> Document:
    """The relay's file; `holdfast_gateway.relay.regions` reads it."""
    return {
        "services": {
            route.key: {
                "regions": [hop.region for hop in hops_in_order(route, snapshot, options)],
                "maxResumes": route.max_resumes,
                "progressTimeoutSeconds": route.progress_timeout.total_seconds(),
            }
            for route in routes
        }
    }
