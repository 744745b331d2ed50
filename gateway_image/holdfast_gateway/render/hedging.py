"""A second attempt for requests that wait long: the first answer counts, what else runs is cancelled. Never a stream.

Envoy asks anew after a time-out per try without giving up what it has asked, as often as the route has retries. Not
while revisions share the requests: the last attempts may be answered by the other side.
"""

from __future__ import annotations

from holdfast.api.route import Route
from holdfast_gateway.render import sides
from holdfast_gateway.render.answers import metadata
from holdfast_gateway.render.values import Document, seconds


def hedged(made: Document, route: Route) -> list[Document]:
    """The client port's route; if the service hedges, one for streams and one for all else."""
    if route.hedge_after is None or sides.shares(route):
        return [made]
    found = [*made["match"]["dynamic_metadata"], metadata("stream", {"bool_match": True})]
    streams = made | {"match": made["match"] | {"dynamic_metadata": found}}
    after = {"per_try_timeout": seconds(route.hedge_after.total_seconds())}
    action = made["route"] | {
        "hedge_policy": {"hedge_on_per_try_timeout": True},
        "retry_policy": made["route"]["retry_policy"] | after,
    }
    return [streams, made | {"route": action}]
