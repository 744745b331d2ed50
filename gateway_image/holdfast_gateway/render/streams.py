"""What the relay is told: for each service the regions that may continue its streams, in order."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.api.route import Route
from holdfast_gateway.render.endpoints import Hop
from holdfast_gateway.render.values import Document

STREAMS = "streams.json"
"""The relay's file: `services`, by key; `holdfast_gateway.relay.regions` reads it."""


def stream(route: Route, hops: Sequence[Hop]) -> Document:
    """What it holds of a service."""
    return {
        "regions": [hop.region for hop in hops],
        "maxResumes": route.max_resumes,
        "progressTimeoutSeconds": route.progress_timeout.total_seconds(),
    }
