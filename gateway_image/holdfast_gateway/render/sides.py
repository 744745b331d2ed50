"""Which revision answers: the shares of a split, and the pins of streams that are continued.

A split is made at the peer port, the last hop: whichever gateway a user comes to, the same hash of the user's name
meets the same shares. Shares are slots of a circle of fixed size, filled in order: as long as the first of two grows,
nobody leaves it.

Each revision has a cluster of its own then, whose engines are never used against the checks: a peer port without a
healthy engine of the side that a request belongs to refuses, and the sender asks the next region. After all regions
have been asked any side may answer. `local/NAMESPACE/NAME` holds the engines of all sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from holdfast.api.names import PROBE_HEADER, REVISION_HEADER, TENANT_HEADER
from holdfast.api.route import RevisionShare, Route
from holdfast_gateway.render.answers import direct
from holdfast_gateway.render.errors import error_body
from holdfast_gateway.render.values import (
    ANY_REVISION,
    GONE_HEADER,
    MODEL_METADATA,
    REVISION_METADATA,
    Document,
    header,
    local_cluster,
)
from holdfast_gateway.state import Snapshot

SLOTS = 10_000
ATTEMPT_HEADER = "x-envoy-attempt-count"
"""Which attempt of its sender a request is, from 1 on; Envoy sets it."""
MOST_ATTEMPTS = 2**31


def shares(route: Route) -> tuple[RevisionShare, ...]:
    """The revisions that get requests; nothing where all engines are alike."""
    return tuple(share for share in route.revisions if share.weight > 0)


def slots(weights: Sequence[int]) -> list[int]:
    """How many of all slots each gets. The border after each depends on the part of all that comes before it, not on
    how the rest is divided."""
    total = sum(weights)
    ends = [round(SLOTS * upto / total) for upto in accumulate(weights)]
    return [end - start for start, end in pairwise([0, *ends])]


def engines(route: Route, snapshot: Snapshot) -> Mapping[str, str]:
    """IP address of each engine here → its revision, empty where it is not known."""
    said = snapshot.revisions.get(route.key, {})
    return {address: said.get(address, "") for address in sorted(snapshot.engines.get(route.key, ()))}


def answering(route: Route, snapshot: Snapshot) -> list[str]:
    """The engines here that get requests: those of all sides."""
    wanted = {share.name for share in shares(route)}
    return [address for address, revision in engines(route, snapshot).items() if not wanted or revision in wanted]


def of_revision(route: Route, snapshot: Snapshot, revision: str) -> list[str]:
    """The engines of one."""
    return [address for address, each in engines(route, snapshot).items() if each == revision]


def apart(route: Route, snapshot: Snapshot) -> list[str]:
    """The revisions with a cluster of their own: all that there are, unless all engines are of one and no shares are
    given."""
    seen = set(engines(route, snapshot).values())
    if not shares(route) and len(seen) < 2:
        return []
    return sorted({*seen - {""}, *(share.name for share in shares(route))})


def retrying(action: Document, engines: int) -> Document:
    """The action, without retries if there is no second engine to retry at."""
    policy = action["retry_policy"]
    return action | {"retry_policy": policy | {"num_retries": policy["num_retries"] if engines > 1 else 0}}


def labelled(host: Document, revision: str) -> Document:
    """A host that tells its revision."""
    if not revision:
        return host
    return host | {"metadata": {"filter_metadata": {MODEL_METADATA: {REVISION_METADATA: revision}}}}


def told() -> Document:
    """Names the revision on the answer, by what the host says that gave it."""
    return header(REVISION_HEADER, f"%UPSTREAM_METADATA({MODEL_METADATA}:{REVISION_METADATA})%")


def peer_routes(made: Document, route: Route, snapshot: Snapshot, regions: int) -> list[Document]:
    """The peer port's routes to the engines, from the one that takes them all alike; `regions` are asked by turns."""
    found = [*pins(made, route, snapshot), gone(made)]
    if not shares(route):
        return [*found, made]
    late = {"name": ATTEMPT_HEADER, "range_match": {"start": regions + 1, "end": MOST_ATTEMPTS}}
    probe = {"name": PROBE_HEADER, "present_match": True}
    whichever = [restricted(made, each) for each in (asked(ANY_REVISION), probe, late)]
    return [*found, *whichever, split(made, route, snapshot)]


def pins(made: Document, route: Route, snapshot: Snapshot) -> list[Document]:
    """For requests that only one revision may answer."""
    own = {name: local_cluster(route.key, name) for name in apart(route, snapshot)}
    if not own:
        own = {name: local_cluster(route.key) for name in set(engines(route, snapshot).values()) - {""}}
    return [
        restricted(made, asked(name))
        | {"route": retrying(made["route"], len(of_revision(route, snapshot, name))) | {"cluster": cluster}}
        for name, cluster in own.items()
    ]


def gone(made: Document) -> Document:
    """The refusal of a request for a revision of which no engine is here."""
    body = error_body("This region runs no such revision.", "server_error", "service_unavailable")
    named = {"name": REVISION_HEADER, "string_match": {"safe_regex": {"regex": r"[^*].*"}}}
    refusal = direct(restricted(made, named)["match"], 503, body)
    return refusal | {"response_headers_to_add": [*refusal["response_headers_to_add"], header(GONE_HEADER, "true")]}


def split(made: Document, route: Route, snapshot: Snapshot) -> Document:
    """By share: the same for the same user, else for the same tenant, else by chance."""
    found = shares(route)
    sizes = [len(of_revision(route, snapshot, share.name)) for share in found]
    clusters = [
        {"name": local_cluster(route.key, share.name), "weight": count}
        for share, count in zip(found, slots([share.weight for share in found]), strict=True)
        if count
    ]
    # Retries are those of the route: as many as the side with the fewest engines can take.
    action = retrying(made["route"], min((size for size in sizes if size), default=0))
    del action["cluster"]
    action["weighted_clusters"] = {"clusters": clusters, "use_hash_policy": True}
    action["hash_policy"] = [
        {"header": {"header_name": route.sticky_header}, "terminal": True},
        {"header": {"header_name": TENANT_HEADER}},
    ]
    return made | {"route": action}


def asked(revision: str) -> Document:
    """Matches requests that this revision shall answer."""
    return {"name": REVISION_HEADER, "string_match": {"exact": revision}}


def restricted(made: Document, to: Document) -> Document:
    """The route, for requests with this header alone."""
    return made | {"match": made["match"] | {"headers": [*made["match"]["headers"], to]}}
