"""Route tables: from a request's model to a service (client port), from that to engines (peer port).

Which of them a request meets is said by `tables`.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.api.names import PROBE_HEADER, REVISION_HEADER, SERVICE_HEADER, TIMEOUT_HEADER
from holdfast.api.route import Route
from holdfast.api.traffic import TRAFFIC_PATH
from holdfast_gateway.options import Options
from holdfast_gateway.render import affinity, cors, deadlines, hedging, kserve, sides, spare
from holdfast_gateway.render.answers import (
    View,
    direct,
    forbidden,
    metadata,
    model_card,
    model_lists,
    of_body,
    one_of,
    refusals,
    unreadable_timeout,
    with_headers,
)
from holdfast_gateway.render.endpoints import in_service, walk
from holdfast_gateway.render.errors import error_body
from holdfast_gateway.render.tables import NONE, TABLE_HEADER, known, table_name
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

CLIENT_ROUTES = "client"
PEER_ROUTES = "peer"
OUTBOUND_ROUTES = "outbound"
STREAM_PATHS = r"/v1/(chat/)?completions"
TABLE = "config.route.v3.RouteConfiguration"
RETRY_ON = "connect-failure,refused-stream,reset,retriable-status-codes"
RETRIABLE = [429, 502, 503, 504]
"""Statuses after which another engine or region is asked; the last answer is what the client gets."""

NOT_HERE = error_body("This region does not run the service.", "server_error", "service_unavailable")
NOT_KNOWN = error_body("This gateway does not know the service.", "server_error", "service_unavailable")
MAX_LOCAL_RETRIES = 2
"""Bounds how many engines of one region a request may take down with it."""


def client_table(seen: Sequence[View], options: Options) -> Document:
    """The client port's routes for what names no service, or none that the asker may use."""

    def to_service(route: Route) -> Document:
        return service_route(route, [], None, options)

    routes = [
        spare.reserved(),
        *cors.unread(options.cors_origins),
        *model_lists(seen),
        unreadable_timeout(),
        *kserve.others(seen, to_service),
        *refusals(seen),
    ]
    return table(CLIENT_ROUTES, routes) | cors.policy(options.cors_origins)


def client_table_of(route: Route, users: Sequence[str] | None, other: Route | None, options: Options) -> Document:
    """The client port's routes to one service: by whether a stream is asked for, and by who asks. `users`: the tenants
    that may use it; None: everybody. `other` stands in for it. What no route here takes has those of `client_table`."""
    who = [] if users is None else [one_of(users)]
    found = []
    if users is None or users:
        whole = service_route(route, who, other, options)
        streams = [stream_route(route, who, options)] if options.relay_port else []
        found = [
            spare.reserved(),
            model_card(who, route.model),
            unreadable_timeout(),
            *(affinity.hashed(each, route) for each in [*streams, *hedging.hedged(whole, route)]),
            # No other one stands in for a service here, as the path names it.
            *kserve.client_routes(route, who, service_route(route, [], None, options)),
        ]
    refused = [] if users is None else [forbidden(route)]
    made = table(CLIENT_ROUTES, known([*found, *refused]), route.key)
    return made | cors.policy(options.cors_origins)


def peer_table(options: Options) -> Document:
    """The peer port's routes that are not to engines."""
    own = [{"match": {"prefix": "/ready/"}, "route": {"cluster": READY_CLUSTER}}]
    if options.status_port:
        own.append({"match": {"path": TRAFFIC_PATH}, "route": {"cluster": AGENT_CLUSTER}})
    return table(PEER_ROUTES, [*own, not_here()])


def peer_table_of(route: Route, other: Route | None, snapshot: Snapshot) -> Document:
    """The peer port's routes to one service: local engines only, so that a request crosses regions once at most.
    `other` stands in for it."""
    stand_in = [spare_route(route.key, other, snapshot)] if other is not None and other.local else []
    engines = engine_routes(route, snapshot) if route.local else []
    counted = [users_requests(route)] if route.local else []
    return table(PEER_ROUTES, [*stand_in, *engines, not_here()], route.key, counted)


def not_here() -> Document:
    """503, not 404: the sender has a newer or older view, and shall try the next region."""
    return direct({"prefix": "/"}, 503, NOT_HERE)


def outbound_table_of(route: Route, other: Route | None, options: Options) -> Document:
    """The relay's routes to one service: to all its regions by turns, or to one of them."""
    to_all = {**service_route(route, [], other, options), "match": of_service(route.key)}
    return table(OUTBOUND_ROUTES, [peer_route(route), to_all], route.key)


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


def table(port: str, routes: list[Document], key: str = NONE, counted: Sequence[Document] = ()) -> Document:
    """A route table for all host names, of a service or of what names none, and which requests are counted apart.

    While its cluster is still warming up, a route answers 503.
    """
    bodies = [route["direct_response"]["body"]["inline_string"] for route in routes if "direct_response" in route]
    host: Document = {"name": port, "domains": ["*"], "routes": routes}
    if port != PEER_ROUTES:  # engines need not know
        host["include_request_attempt_count"] = True
    return typed(
        TABLE,
        name=table_name(port, key),
        request_headers_to_remove=[TABLE_HEADER],
        virtual_hosts=[host | ({"virtual_clusters": list(counted)} if counted else {})],
        validate_clusters=False,
        max_direct_response_body_size_bytes=max([4096, *(len(body.encode()) for body in bodies)]),
    )
