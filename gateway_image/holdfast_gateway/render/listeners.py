"""Listeners: clients, peers, health checks, metrics. They never change with the services.

Replacing a listener makes Envoy close its connections after the drain time; replacing a route table does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.api.names import PROBE_HEADER, REVISION_HEADER, SERVICE_HEADER, TENANT_HEADER
from holdfast_gateway.options import Options
from holdfast_gateway.render import affinity, cors, door, kserve, limits, spare, tables, tracing, usage
from holdfast_gateway.render.door import COMPOSITE, discovered, execute, resource
from holdfast_gateway.render.errors import local_replies, no_table
from holdfast_gateway.render.matching import MATCHING, request_header, skip_if, with_matcher
from holdfast_gateway.render.routes import CLIENT_ROUTES, NOT_HERE, NOT_KNOWN, OUTBOUND_ROUTES, PEER_ROUTES
from holdfast_gateway.render.tables import NONE
from holdfast_gateway.render.values import (
    ADMIN_CLUSTER,
    MODEL_METADATA,
    READY_LISTENER,
    REGION_HEADER,
    Document,
    http_filter,
    local_cluster,
    ready_path,
    seconds,
    socket_address,
    typed,
)

LISTENER = "config.listener.v3.Listener"
READY = "ecds-ready.json"
HEADERS_SECONDS = 10.0
"""For the headers of a request to arrive."""
USERS: list[Document] = [
    {"name": PROBE_HEADER, "present_match": True},
    {"name": ":path", "string_match": {"prefix": "/ready"}},
]
"""What requests of users do not have, but those of observers and of other gateways' health checks."""
MAX_STREAMS = 10_000
"""Concurrent requests on one HTTP/2 connection from a peer."""


def client(options: Options, directory: str) -> Document:
    """For clients; `directory` holds Envoy's files."""
    filters = [
        gateway_ready(),
        *cors.filters(options.cors_origins),
        *usage.number(options),
        *door.filters(options, directory),
        read_body(),
        kserve.read_message(),
        tables.chooser(CLIENT_ROUTES, kserve.EXTRACTION),
        affinity.hashing(),
        *usage.read_usage(options),
        *limits.filters(options),
    ]
    manager = connection_manager(CLIENT_ROUTES, options, filters)
    if options.ledger:
        manager["access_log"] = [*manager.get("access_log", []), *usage.spool(options)]
    return listener(CLIENT_ROUTES, options, options.client_port, manager)


def peer(options: Options) -> Document:
    """For other regions' gateways and edges."""
    filters = [gateway_ready(), spare.rewriting()]
    manager = connection_manager(PEER_ROUTES, options, filters, NOT_HERE)
    return listener(PEER_ROUTES, options, options.peer_port, manager)


def outbound(options: Options) -> Document:
    """For the relay alone, on the loopback address. It stays open while the gateway drains, as streams that run may
    have to be continued."""
    manager = connection_manager(OUTBOUND_ROUTES, options, [], NOT_KNOWN)
    # Else Envoy tells of a stream that broke off only after a second, which it gives clients to read what it sent last.
    manager["delayed_close_timeout"] = "0s"
    port = socket_address(options.own_address, options.outbound_port)
    return {**listener(OUTBOUND_ROUTES, options, options.outbound_port, manager), "address": port} | {
        "traffic_direction": "OUTBOUND"
    }


def ready(directory: str) -> Document:
    """Answers `/ready/NAMESPACE/SERVICE` from what Envoy knows of its engines; behind the peer port."""
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=READY_LISTENER,
        http_filters=[discovered(READY_LISTENER, directory, READY, MATCHING), router()],
        route_config={
            "name": READY_LISTENER,
            "virtual_hosts": [
                {
                    "name": READY_LISTENER,
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 503}}],
                }
            ],
        },
    )
    return typed(LISTENER, name=READY_LISTENER, internal_listener={}, filter_chains=[chain(manager)])


def metrics(options: Options) -> Document:
    """`/stats/prometheus` of the admin interface and nothing else of it; `/live` while Envoy turns at all."""
    live = {"match": {"path": "/live"}, "direct_response": {"status": 200}}
    scrape = {"match": {"path": "/stats/prometheus"}, "route": {"cluster": ADMIN_CLUSTER}}
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="metrics",
        http_filters=[router()],
        route_config={"virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": [live, scrape]}]},
    )
    return {
        "name": "metrics",
        "ignore_global_conn_limit": True,
        "address": socket_address(options.listen, options.metrics_port),
        "filter_chains": [chain(manager)],
    }


def listener(name: str, options: Options, port: int, manager: Document) -> Document:
    """A TCP listener whose buffers hold the largest body, so that it can be read and sent again."""
    return typed(
        LISTENER,
        name=name,
        **({} if name == CLIENT_ROUTES else {"ignore_global_conn_limit": True}),
        address=socket_address(options.listen, port),
        traffic_direction="INBOUND",
        per_connection_buffer_limit_bytes=options.max_body,
        filter_chains=[chain(manager)],
    )


def chain(manager: Document) -> Document:
    """A filter chain that speaks HTTP."""
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}


def connection_manager(name: str, options: Options, filters: list[Document], unknown: str = "") -> Document:
    """HTTP/1.1 and HTTP/2 alike; quiet streams are never cut, the route's time-out alone bounds an answer. `unknown` is
    the body of the answer to who asks for a service without a table, where a header names the service.

    Every client counts as external, so that nobody steers retries by sending Envoy's own headers.
    """
    first = [*limits.replies(options), *([no_table(unknown)] if unknown else [])]
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        codec_type="AUTO",
        use_remote_address=True,
        internal_address_config={"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        generate_request_id=True,
        preserve_external_request_id=True,
        stream_idle_timeout="0s",
        # Else a client that sends a header now and then holds what it has sent for an hour.
        request_headers_timeout=seconds(HEADERS_SECONDS),
        http2_protocol_options={"max_concurrent_streams": MAX_STREAMS},
        local_reply_config=local_replies(first),
        **tables.manager(name, tables.BY_SERVICE if unknown else NONE),
        http_filters=[*filters, router()],
    )
    manager |= tracing.of_port(name, options, begins=name == CLIENT_ROUTES)
    return manager | ({"access_log": [access_log(name)]} if options.access_log else {})


def router() -> Document:
    """The filter that forwards; without Envoy's own headers on requests and answers."""
    return http_filter("envoy.filters.http.router", "router.v3.Router", suppress_envoy_headers=True)


def gateway_ready() -> Document:
    """`/ready`: this gateway is up and not draining. While it drains, its answers send peers elsewhere."""
    return health_filter("ready", "/ready")


def engines_ready(keys: Sequence[str]) -> Document:
    """What the file `READY` holds: a filter for each of these services, chosen by the path."""
    chains: Document = {key: {"typed_config": [service_ready(key)]} for key in keys}
    chains["none"] = {"typed_config": [health_filter("none", "/")]}
    tree: Document = {"on_no_match": {"action": execute("none")}}
    if keys:
        chosen = {ready_path(key): {"action": execute(key)} for key in keys}
        tree["matcher_tree"] = {"input": request_header(":path"), "exact_match_map": {"map": chosen}}
    composite = typed(f"{COMPOSITE}.Composite", named_filter_chains=chains)
    return resource(READY_LISTENER, with_matcher("engines", composite, tree))


def service_ready(key: str) -> Document:
    """`/ready/NAMESPACE/SERVICE`: at least one engine here is healthy. Asks nobody."""
    floor = {local_cluster(key): {"value": 1}}
    return health_filter(f"ready/{key}", ready_path(key), cluster_min_healthy_percentages=floor)


def health_filter(name: str, path: str, /, **fields: Any) -> Document:
    """A filter that answers one path by itself."""
    return http_filter(
        name,
        "health_check.v3.HealthCheck",
        pass_through_mode=False,
        headers=[{"name": ":path", "string_match": {"exact": path}}],
        **fields,
    )


def read_body() -> Document:
    """Reads `model` and `stream` from the body, whatever its content type, and notes if it is missing or unreadable."""

    def note(key: str, value: str | None = None) -> Document:
        pair: Document = {"metadata_namespace": MODEL_METADATA, "key": key}
        return pair | ({"type": "STRING"} if value is None else {"value": value})

    rule = {
        "selectors": [{"key": "model"}],
        "on_present": note("model"),
        "on_missing": note("problem", "missing"),
        "on_error": note("problem", "broken"),
    }
    # As it is: only the JSON value `true` asks for a stream.
    stream = {
        "selectors": [{"key": "stream"}],
        "on_present": {"metadata_namespace": MODEL_METADATA, "key": "stream", "type": "PROTOBUF_VALUE"},
    }
    config = typed(
        "extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
        request_rules={
            "rules": [rule, stream],
            "allow_content_types_regex": {"regex": ".*"},
            "allow_empty_content_type": True,
        },
    )
    # It holds a request back until its end, which one by gRPC may not have for long.
    name = "envoy.filters.http.json_to_metadata"
    return {"name": name, "typed_config": skip_if("content-type", kserve.GRPC, name, config)}


def without(header: Document) -> Document:
    """Chooses requests without such a header."""
    return {"header_filter": {"header": {**header, "invert_match": True}}}


def access_log(name: str) -> Document:
    """One JSON line for each request of a user, without its query, and of its body with the model's name alone."""
    fields = {
        "time": "%START_TIME%",
        "port": name,
        "request_id": "%REQ(X-REQUEST-ID)%",
        "trace_id": "%TRACE_ID%",
        "traceparent": "%REQ(TRACEPARENT)%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ)%",
        "service": f"%REQ({SERVICE_HEADER})%",
        "model": f"%DYNAMIC_METADATA({MODEL_METADATA}:model)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "milliseconds": "%DURATION%",
        "first_byte_ms": "%RESPONSE_DURATION%",
        "request_bytes": "%BYTES_RECEIVED%",
        "bytes": "%BYTES_SENT%",
        "tenant": f"%REQ({TENANT_HEADER})%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "upstream": "%UPSTREAM_HOST%",
        "region": f"%RESP({REGION_HEADER})%",
        "revision": f"%RESP({REVISION_HEADER})%",
    }
    return {
        "name": "envoy.access_loggers.stdout",
        "filter": {"and_filter": {"filters": [*map(without, USERS), {"not_health_check_filter": {}}]}},
        "typed_config": typed(
            "extensions.access_loggers.stream.v3.StdoutAccessLog", log_format={"json_format": fields}
        ),
    }
