"""Route tables: from a request's model to a service (client port), from that to engines (peer port)."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.api.names import PROBE_HEADER, REVISION_HEADER, SERVICE_HEADER, TIMEOUT_HEADER
from holdfast.api.route import Route
from holdfast.api.traffic import TRAFFIC_PATH
from holdfast_gateway.options import Auth, Options
from holdfast_gateway.render import affinity, cors, deadlines, hedging, kserve, sides, spare
from holdfast_gateway.render.answers import (
    Views,
    direct,
    forbidden,
    metadata,
    model_lists,
    of_body,
    one_of,
    refusals,
    unreadable_timeout,
    views,
    with_headers,
)
from holdfast_gateway.render.endpoints import in_service, walk
from holdfast_gateway.render.errors import error_body
from holdfast_gateway.render.values import (
    AGENT_CLUSTER,
    PEER_HEADER,
    READY_CLUSTER,
    RECORD_HEADER,
    REGION_HEADER,
    Document,
    header,
    local_cluster,
    seconds,
    service_cluster,
    spare_cluster,
    stream_cluster,
    typed,
)
from holdfast_gateway.state import Snapshot
from holdfast_gateway.tenants import Tenant, allowed

CLIENT_ROUTES = "client"
PEER_ROUTES = "peer"
OUTBOUND_ROUTES = "outbound"
STREAM_PATHS = r"/v1/(chat/)?completions"
TABLE = "config.route.v3.RouteConfiguration"
RETRY_ON = "connect-failure,refused-stream,reset,retriable-status-codes"
RETRIABLE = [429, 502, 503, 504]
"""Statuses after which another engine or region is asked; the last answer is what the client gets."""

MAX_LOCAL_RETRIES = 2
"""Bounds how many engines of one region a request may take down with it."""


def client_table(routes: Sequence[Route], options: Options, tenants: Sequence[Tenant] = ()) -> Document:
    """The client port's routes: chosen by the `model` of the request's body, by whether it asks for a stream, and
    where tenants must say who they are by what they may use."""
    guarded = options.auth is Auth.REQUIRED
    seen = views(routes, tenants if guarded else ())
    others = spare.spares(routes)
    entries: list[tuple[Route, list[Document]]] = [(route, []) for route in routes]
    if guarded:
        users = [(route, allowed(tenants, route.model)) for route in routes]
        entries = [(route, [one_of(names)]) for route, names in users if names]
    streams = [(route, stream_route(route, who, options)) for route, who in entries if options.relay_port]
    whole = [(route, service_route(route, who, others.get(route.key), options)) for route, who in entries]
    found = table(
        CLIENT_ROUTES,
        [
            *([spare.reserved()] if others else []),
            *cors.unread(options.cors_origins),
            *model_lists(seen),
            unreadable_timeout(),
            *(affinity.hashed(each, route) for route, each in streams),
            *(affinity.hashed(each, route) for route, made in whole for each in hedging.hedged(made, route)),
            *kserve_routes(routes, entries, seen, options),
            *(forbidden(route) for route in routes if guarded),
            *refusals(seen),
        ],
    )
    return found | cors.policy(options.cors_origins)


def kserve_routes(
    routes: Sequence[Route], entries: Sequence[tuple[Route, list[Document]]], seen: Views, options: Options
) -> list[Document]:
    """The same services by KServe's protocol; no other one stands in for a service here, as the path names it."""
    to_service = {route.key: service_route(route, [], None, options) for route in routes}
    return [
        *(each for route, who in entries for each in kserve.client_routes(route, who, to_service[route.key])),
        *kserve.others(seen, to_service),
    ]


def peer_table(routes: Sequence[Route], snapshot: Snapshot, options: Options) -> Document:
    """The peer port's routes: local engines only, so that a request crosses regions once at most."""
    own = [{"match": {"prefix": "/ready/"}, "route": {"cluster": READY_CLUSTER}}]
    if options.status_port:
        own.append({"match": {"path": TRAFFIC_PATH}, "route": {"cluster": AGENT_CLUSTER}})
    missing = error_body("This region does not run the service.", "server_error", "service_unavailable")
    # 503, not 404: the sender has a newer or older view, and shall try the next region.
    unknown = direct({"prefix": "/"}, 503, missing)
    engines = [each for route in routes if route.local for each in engine_routes(route, snapshot)]
    stand_ins = [spare_route(key, other, snapshot) for key, other in spare.spares(routes).items() if other.local]
    counted = [users_requests(route) for route in routes if route.local]
    return table(PEER_ROUTES, [*own, *stand_ins, *engines, unknown], counted)


def outbound_table(routes: Sequence[Route], options: Options) -> Document:
    """The relay's routes: to a service, or to one region of it."""
    missing = error_body("This gateway does not know the service.", "server_error", "service_unavailable")
    by_region = [peer_route(route) for route in routes]
    others = spare.spares(routes)
    by_service = [
        {**service_route(route, [], others.get(route.key), options), "match": of_service(route.key)} for route in routes
    ]
    return table(OUTBOUND_ROUTES, [*by_region, *by_service, direct({"prefix": "/"}, 503, missing)])


def users_requests(route: Route) -> Document:
    """Envoy counts these apart: requests for one service without those of observers, and those that another answers."""
    return {
        "name": route.key,
        "headers": [
            {"name": SERVICE_HEADER, "string_match": {"exact": route.key}},
            {"name": PROBE_HEADER, "present_match": True, "invert_match": True},
            spare.not_asked(),
        ],
    }


def service_route(route: Route, who: list[Document], other: Route | None, options: Options) -> Document:
    """To the regions, with retries that walk all of them before the first byte of an answer, and then those of the
    service that stands in; for requests with the headers `who`."""
    attempts = 1
    if other is None:
        action = forward(service_cluster(route.key), route, retries=max(2, len(route.regions)))
    else:
        attempts, retries = walk(route, other, options)
        action = forward(spare_cluster(route.key), route, retries) | {"auto_host_rewrite": True}
    # After a failure the next priority is asked, whatever the state of the one that failed.
    action["retry_policy"]["retry_priority"] = {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": typed(
            "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", update_frequency=attempts
        ),
    }
    return {
        "match": with_headers(of_body("model", {"string_match": {"exact": route.model}}), who),
        "route": action,
        "request_headers_to_add": [header(SERVICE_HEADER, route.key)],
        "request_headers_to_remove": [PROBE_HEADER],
    }


def stream_route(route: Route, who: list[Document], options: Options) -> Document:
    """To the relay; to the regions, as `service_route`, while it is dead. What it answers with `x-envoy-ratelimited` is
    not asked for again: it has been to the regions."""
    made = service_route(route, who, None, options)
    made["route"]["cluster"] = stream_cluster(route.key)
    found = [*made["match"]["dynamic_metadata"], metadata("stream", {"bool_match": True})]
    made["match"] = with_headers({"safe_regex": {"regex": STREAM_PATHS}, "dynamic_metadata": found}, who)
    return made | {"response_headers_to_remove": ["x-envoy-ratelimited"]}


def peer_route(route: Route) -> Document:
    """To the region whose cluster the relay names. If that fails, the relay chooses another."""
    action = forward("", route, retries=1)
    del action["cluster"]
    action["retry_policy"]["retry_on"] = "connect-failure,refused-stream,reset-before-request"
    match = of_service(route.key)
    match["headers"].append({"name": PEER_HEADER, "present_match": True})
    return {
        "match": match,
        "route": {"cluster_header": PEER_HEADER, **action},
        "request_headers_to_remove": [PEER_HEADER, PROBE_HEADER],
    }


def of_service(key: str) -> Document:
    """Matches requests that name the service in a header."""
    return {"prefix": "/", "headers": [{"name": SERVICE_HEADER, "string_match": {"exact": key}}]}


def spare_route(key: str, other: Route, snapshot: Snapshot) -> Document:
    """To this region's engines of a service that stands in for the one with this key."""
    made = engine_route(other, snapshot)
    match = of_service(key)
    match["headers"].append(spare.asked(other))
    return spare.in_place(made | {"match": match}, other)


def engine_routes(route: Route, snapshot: Snapshot) -> list[Document]:
    """To this region's engines; with the service's own time limit where the client's is longer."""
    bounded = {"request_headers_to_add": [header(TIMEOUT_HEADER, str(deadlines.longest(route)))]}
    found = []
    for made in sides.peer_routes(engine_route(route, snapshot), route, snapshot, len(in_service(route))):
        if "route" in made:
            match = made["match"] | {"headers": [*made["match"]["headers"], *deadlines.too_long(route)]}
            found += [kserve.engine_route(made), made | {"match": match} | bounded]
        found.append(made)
    return found


def engine_route(route: Route, snapshot: Snapshot) -> Document:
    """To this region's engines; a retry goes to another engine, so there are none with a single one."""
    retries = MAX_LOCAL_RETRIES if len(sides.answering(route, snapshot)) > 1 else 0
    return {
        "match": of_service(route.key),
        "route": forward(local_cluster(route.key), route, retries),
        "request_headers_to_remove": [
            *(SERVICE_HEADER, RECORD_HEADER, REVISION_HEADER, sides.ATTEMPT_HEADER, "x-envoy-external-address")
        ],
        "response_headers_to_add": [header(REGION_HEADER, route.region), sides.told()],
    }


def forward(cluster: str, route: Route, retries: int) -> Document:
    """A route's action. No time-out per try: an answer that is not streamed has no early sign of life."""
    return {
        "cluster": cluster,
        "timeout": seconds(route.max_stream.total_seconds()),
        "idle_timeout": "0s",
        "retry_policy": {
            "retry_on": RETRY_ON,
            "retriable_status_codes": RETRIABLE,
            "num_retries": retries,
            "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
                }
            ],
            "host_selection_retry_max_attempts": 10,
        },
    }


def table(name: str, routes: list[Document], counted: Sequence[Document] = ()) -> Document:
    """A route table for all host names, and which requests are counted apart.

    While its cluster is still warming up, a route answers 503.
    """
    bodies = [route["direct_response"]["body"]["inline_string"] for route in routes if "direct_response" in route]
    host: Document = {"name": name, "domains": ["*"], "routes": routes}
    if name != PEER_ROUTES:  # engines need not know
        host["include_request_attempt_count"] = True
    return typed(
        TABLE,
        name=name,
        virtual_hosts=[host | ({"virtual_clusters": list(counted)} if counted else {})],
        validate_clusters=False,
        max_direct_response_body_size_bytes=max(4096, *(len(body.encode()) for body in bodies)),
    )
