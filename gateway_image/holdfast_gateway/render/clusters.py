"""Clusters: how hosts are spoken to, judged and chosen.

Two for each service. `local/…` holds this region's engines. `service/…` holds the regions, each by the peer
port of its gateway and this region by its own: so one host there stands for one region's engines, whose
health its Envoy knows, and all hosts of a cluster share one protocol and one health path, as Envoy wants it.

With a stream relay there is a third, `stream/…`: the relay, and behind it, for as long as it is not healthy, what
`service/…` holds. `peer/…` holds one region, for a stream that is continued there and nowhere else.
"""

from __future__ import annotations

from holdfast.api.route import EngineProtocol, Route
from holdfast_gateway.options import Options
from holdfast_gateway.render import affinity
from holdfast_gateway.render.values import (
    ADMIN_CLUSTER,
    ADS,
    AGENT_CLUSTER,
    READY_CLUSTER,
    READY_LISTENER,
    XDS_CLUSTER,
    Document,
    endpoint,
    local_cluster,
    peer_cluster,
    ready_path,
    seconds,
    service_cluster,
    socket_address,
    stream_cluster,
    typed,
)

CLUSTER = "config.cluster.v3.Cluster"
UNLIMITED = 1_000_000
RELAY_SILENCE = 3.0
"""Seconds after which a relay that does not answer a ping is given up."""
RELAY_INTERVAL = 0.5
"""Seconds between two checks of a relay that has not been well so far: streams that begin meanwhile are not kept."""
STREAM_WINDOW, CONNECTION_WINDOW = 256 * 1024, 256 * 1024 * 1024
"""Bytes of a stream that a client may leave unread, and of all streams on one connection."""
HEALTH_HOST = "holdfast-gateway"


def local(route: Route, options: Options, revision: str | None = None) -> Document:
    """This region's engines, or those of one revision.

    Without a healthy engine of a revision its requests go elsewhere, not to engines that look unhealthy: there may be a
    region with better ones, and after all regions the cluster of all engines is asked.
    """
    cluster = least_busy(upstream(local_cluster(route.key, revision), options, route.engine_protocol))
    if revision is not None:
        cluster["common_lb_config"]["healthy_panic_threshold"] = {"value": 0}
    cluster = affinity.looked_up(cluster, route)
    return cluster | {"health_checks": [health_check(options, route.health_path, route.engine_protocol)]}


def service(route: Route, options: Options) -> Document:
    """All regions' gateways."""
    cluster = upstream(service_cluster(route.key), options, EngineProtocol.H2C)
    return cluster | {"health_checks": [gateway_check(options, ready_path(route.key))]}


def stream(route: Route, options: Options) -> Document:
    """The relay, and all regions' gateways behind it.

    What a client has not read yet counts against the window of its stream and of the connection that it shares: a small
    one for streams and a large one for connections, so that clients that do not read hold up nobody else.

    Pings and checks are given more time than elsewhere: the relay stands beside Envoy, where a death is told at once,
    and a busy machine is no reason to cut all of its streams, or to pass it by.
    """
    cluster = upstream(stream_cluster(route.key), options, EngineProtocol.H2C)
    (protocol,) = cluster["typed_extension_protocol_options"].values()
    protocol["explicit_http_config"]["http2_protocol_options"] |= {
        "initial_stream_window_size": STREAM_WINDOW,
        "initial_connection_window_size": CONNECTION_WINDOW,
        "connection_keepalive": {
            "interval": seconds(options.keepalive_interval),
            "timeout": seconds(max(options.keepalive_timeout, RELAY_SILENCE)),
        },
    }
    pace = {"timeout": seconds(options.health_timeout), "no_traffic_interval": seconds(RELAY_INTERVAL)}
    return cluster | {"health_checks": [gateway_check(options, ready_path(route.key)) | pace]}


def peer(region: str, options: Options) -> Document:
    """One region's gateway. Without health checks, as there is nobody else to ask; pings find out whether it lives."""
    return upstream(peer_cluster(region), options, EngineProtocol.H2C)


def upstream(name: str, options: Options, protocol: EngineProtocol) -> Document:
    """What the clusters of a service have in common, and why:

    - Panic at 1 %: as soon as one host is healthy, only healthy ones get traffic; if none is, all do, because
      then the checks may be what is wrong.
    - New hosts count only after their first check. Hosts that leave get no new request at once and keep
      those that they have: a drained engine or region stops taking requests though it is healthy.
    - Workers learn of a host's health at once; by default, changes within a second of another wait it out.
    - Circuit breakers are out of the way, as they would fail requests that another region could answer.
    """
    return typed(
        CLUSTER,
        name=name,
        type="EDS",
        eds_cluster_config={"service_name": name, "eds_config": ADS},
        connect_timeout=seconds(options.connect_timeout),
        per_connection_buffer_limit_bytes=options.max_body,
        lb_policy="LEAST_REQUEST",
        common_lb_config={
            "healthy_panic_threshold": {"value": 1},
            "ignore_new_hosts_until_first_hc": True,
            "update_merge_window": "0s",
        },
        ignore_health_on_host_removal=True,
        circuit_breakers={"thresholds": [open_breaker("DEFAULT"), open_breaker("HIGH")]},
        outlier_detection=outlier_detection(options),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http_protocol(protocol, options)
        },
    )


def least_busy(cluster: Document) -> Document:
    """The cluster, of whose hosts always the one with the fewest requests is taken: engines are few and their requests
    long. By default Envoy compares two by chance, which may be the same one twice."""
    policy = typed("extensions.load_balancing_policies.least_request.v3.LeastRequest", selection_method="FULL_SCAN")
    chosen = {"typed_extension_config": {"name": "envoy.load_balancing_policies.least_request", "typed_config": policy}}
    kept = {name: value for name, value in cluster.items() if name != "lb_policy"}
    return kept | {"load_balancing_policy": {"policies": [chosen]}}


def open_breaker(priority: str) -> Document:
    """A circuit breaker that never breaks."""
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {"priority": priority, **dict.fromkeys(limits, UNLIMITED)}


def http_protocol(protocol: EngineProtocol, options: Options) -> Document:
    """HTTP/2 with pings, which a dead, frozen or cut-off process cannot answer; or HTTP/1.1, without."""
    codec: Document = {"http_protocol_options": {}}
    if protocol is EngineProtocol.H2C:
        keepalive = {
            "interval": seconds(options.keepalive_interval),
            "timeout": seconds(options.keepalive_timeout),
        }
        codec = {"http2_protocol_options": {"connection_keepalive": keepalive}}
    return typed("extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config=codec)


def health_check(options: Options, path: str, protocol: EngineProtocol) -> Document:
    """An HTTP check at a steady pace that asks again soon after a failure.

    Hosts of a cluster that has never had a request are asked seldom: a gateway may know thousands of services, and a
    request that meets a host which died since goes on to the next.
    """
    pace, unused = seconds(options.health_interval), seconds(options.unused_interval)
    codec = "HTTP2" if protocol is EngineProtocol.H2C else "HTTP1"
    return {
        "timeout": seconds(options.health_timeout),
        "interval": pace,
        "no_traffic_interval": unused,
        "no_traffic_healthy_interval": unused,
        "unhealthy_interval": pace,
        "unhealthy_edge_interval": seconds(options.health_interval / 2),
        "interval_jitter_percent": 10,
        "unhealthy_threshold": options.unhealthy_after,
        "healthy_threshold": 1,
        "reuse_connection": True,
        # Else the host name would be the cluster's, whose slashes HTTP/2 servers refuse.
        "http_health_check": {"host": HEALTH_HOST, "path": path, "codec_client_type": codec},
    }


def gateway_check(options: Options, path: str) -> Document:
    """A check of a gateway, which answers at once: it gets as long as a ping where requests travel.

    By HTTP/1.1, as Envoy would ping on the checks' own connections too, four times a second for each way.
    """
    check = health_check(options, path, EngineProtocol.HTTP1)
    patience = min(options.health_timeout, options.keepalive_interval + options.keepalive_timeout)
    return check | {"timeout": seconds(patience), "tls_options": {"alpn_protocols": ["http/1.1"]}}


def outlier_detection(options: Options) -> Document:
    """Eject hosts that cannot be reached or that drop requests, sooner than health checks notice.

    Only what happens on the way counts, never a status code: an overloaded engine that refuses is doing its
    job, and must not lose its place. A health check that passes ends the ejection; without one it lasts until
    the health checks have had time to fail as well.
    """
    longest = 1 + options.unhealthy_after * (options.health_interval + options.health_timeout)
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_failure_percentage": 0,
        "interval": "1s",
        "base_ejection_time": seconds(longest),
        "max_ejection_time": seconds(3 * longest),
        "max_ejection_percent": 100,
    }


def ready() -> Document:
    """The internal listener that answers peers' health checks; see `listeners.ready`."""
    return internal(READY_CLUSTER, {"envoy_internal_address": {"server_listener_name": READY_LISTENER}})


def admin(options: Options) -> Document:
    """Envoy's own admin interface, for the metrics port."""
    return internal(ADMIN_CLUSTER, socket_address("127.0.0.1", options.admin_port))


def agent(options: Options) -> Document:
    """The agent's own port, for what it tells the observers."""
    return internal(AGENT_CLUSTER, socket_address(options.own_address, options.status_port))


def xds(socket: str) -> Document:
    """Who serves this Envoy its resources; `socket` is a path."""
    http2: Document = {"explicit_http_config": {"http2_protocol_options": {}}}
    return internal(XDS_CLUSTER, {"pipe": {"path": socket}}) | {
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions", **http2
            )
        }
    }


def internal(name: str, address: Document) -> Document:
    """A cluster of one host inside this very process."""
    hosts = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint(address)]}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": hosts}
