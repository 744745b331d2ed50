"""What a region's gateway counts of the requests that its engines answer: read by every observer, kept by nobody.

A gateway answers it on its peer port under `TRAFFIC_PATH`: a JSON object that maps `namespace/name` of each service
that has requests in that region to a `ServiceTraffic`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast.api.schema import Schema

TRAFFIC_PATH = "/traffic"


class ServiceTraffic(Schema):
    """Users' requests for one service of late; the observers' own do not count."""

    window_seconds: Annotated[float, Field(ge=0)]
    """The time that `requests` and `errors` are counted over."""
    requests: Annotated[int, Field(ge=0)] = 0
    """Requests that were answered, or failed."""
    errors: Annotated[int, Field(ge=0)] = 0
    """Those of them that got no answer, or one that says the engines failed (5xx)."""
    silent_seconds: Annotated[float, Field(ge=0)] | None = None
    """How long requests have been at the engines without a token coming from any; nothing where none are there."""
