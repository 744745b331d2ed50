"""One limit over all gateways: Envoy asks a rate limit service, and goes on without it where it does not answer.

The tenant's own filters note what the tenant may do (`door.tenant_filters`); the question carries it along, so that the
service knows nothing of tenants. A tenant without limits is not asked about. The protocol is Envoy's, so that another
service can take the limiter's place.
"""

from __future__ import annotations

from holdfast_gateway.options import Options
from holdfast_gateway.render.errors import error_body, of_status, rewriting
from holdfast_gateway.render.values import Document, endpoint, http_filter, seconds, socket_address, typed
from holdfast_gateway.tenants import Allowance

CLUSTER = "limits"
DOMAIN = "holdfast"
NOTED = "holdfast.limits"
"""Namespace of the dynamic metadata that holds the limits of whoever asks."""

ANSWERED = "envoy.filters.http.ratelimit"
"""Namespace of the dynamic metadata where Envoy puts what the service says."""

REQUESTS, TOKENS = "requests", "tokens"
"""What is counted; the name of a descriptor's first entry."""

COSTS = {REQUESTS: 1, TOKENS: 0}
"""What a request adds when it is asked for; its tokens are counted when it has ended."""

KEEPALIVE, SILENCE = 0.25, 1.0
CHECKS, CHECK_TIMEOUT = 0.5, 0.5
REST = 2.0
"""Seconds for which a limiter that was too slow three times is not asked, unless a health check finds it well again."""


def note(name: str, allowance: Allowance) -> Document:
    """The filter that notes a tenant's limits, of which at least one is not 0."""
    amounts = {REQUESTS: allowance.requests_per_minute, TOKENS: allowance.tokens_per_minute}
    noted = {
        what: {"tenant": name, "limit": {"requests_per_unit": amount, "unit": "MINUTE"}}
        for what, amount in amounts.items()
        if amount
    }
    return http_filter("limits", "set_metadata.v3.Config", metadata=[{"metadata_namespace": NOTED, "value": noted}])


def filters(options: Options) -> list[Document]:
    """The filter that asks, if there is somebody to ask. Behind the one that reads the body: Envoy does not ask about a
    request that it answers itself, as which it takes every one whose model it does not know yet."""
    if not options.limits:
        return []
    asked = http_filter(
        "envoy.filters.http.ratelimit",
        "ratelimit.v3.RateLimit",
        domain=DOMAIN,
        timeout=seconds(options.limits_timeout),
        failure_mode_deny=False,
        rate_limit_service={
            "grpc_service": {"envoy_grpc": {"cluster_name": CLUSTER}},
            "transport_api_version": "V3",
        },
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        disable_x_envoy_ratelimited_header=True,
        rate_limited_as_resource_exhausted=True,  # to clients of gRPC, which else hear that nobody is there
        rate_limits=[descriptor(what) for what in COSTS],
    )
    return [asked]


def descriptor(what: str) -> Document:
    """One question of a request, left out where nothing is noted: who, how much it may and what is added."""

    def noted(key: str) -> Document:
        return {"key": NOTED, "path": [{"key": what}, {"key": key}]}

    # Not `skip_if_absent`, with which Envoy would ask about nothing instead of not asking.
    who = {"descriptor_key": what, "metadata_key": noted("tenant")}
    return {
        "actions": [{"metadata": who}],
        "limit": {"dynamic_metadata": {"metadata_key": noted("limit")}},
        "hits_addend": {"number": COSTS[what]},
    }


def cluster(options: Options) -> Document:
    """The service. One that is dead, frozen or slow is not asked any more, which then costs no time at all."""
    host, _, port = options.limits.rpartition(":")
    hosts = {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [endpoint(socket_address(host, int(port)))]}]}
    keepalive = {"interval": seconds(KEEPALIVE), "timeout": seconds(SILENCE)}
    http = {"explicit_http_config": {"http2_protocol_options": {"connection_keepalive": keepalive}}}
    return {
        "name": CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": seconds(options.limits_timeout),
        "load_assignment": hosts,
        # Without a healthy host there is none to ask; by default Envoy would ask the unhealthy ones.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "health_checks": [
            {
                "timeout": seconds(CHECK_TIMEOUT),
                "interval": seconds(CHECKS),
                "no_traffic_interval": seconds(CHECKS),
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        "outlier_detection": {
            "consecutive_5xx": 3,
            "interval": "1s",
            "base_ejection_time": seconds(REST),
            "max_ejection_time": seconds(REST),
            "max_ejection_percent": 100,
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions", **http
            )
        },
    }


def replies(options: Options) -> list[Document]:
    """How this service's refusals read, where they differ from those of Envoy's own limits."""
    return [too_many_tokens()] if options.limits else []


def too_many_tokens() -> Document:
    """The refusal of a tenant whose tokens of the minute are spent; the limiter says so beside its answer."""
    spent = {"filter": ANSWERED, "path": [{"key": "over"}], "value": {"string_match": {"exact": TOKENS}}}
    found = {"metadata_filter": {"matcher": spent, "match_if_key_not_found": False}}
    message = "Too many tokens: this tenant's limit is reached. Try again after the seconds of Retry-After."
    return rewriting(
        {"and_filter": {"filters": [of_status(429), found]}},
        error_body(message, "rate_limit_error", "rate_limit_exceeded"),
    )
