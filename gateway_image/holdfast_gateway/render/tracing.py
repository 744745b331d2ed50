"""Spans of Envoy's own: one for each request that a port takes, one below it for each attempt to have it answered.

The client port decides whether a request is traced, by its share or as the client's own `traceparent` says; the other
ports follow what that decided. So peers' checks of health begin no trace, and a trace is whole or is not there.
"""

from __future__ import annotations

from holdfast.api.names import REVISION_HEADER, SERVICE_HEADER, TENANT_HEADER
from holdfast.telemetry.endpoint import parse_attributes, parse_endpoint
from holdfast_gateway.options import Options, Role
from holdfast_gateway.render.values import (
    COLLECTOR_CLUSTER,
    MODEL_METADATA,
    REGION_HEADER,
    Document,
    socket_address,
    typed,
)

SENDERS = {Role.REGIONAL: "holdfast-gateway", Role.EDGE: "holdfast-edge"}
"""What a gateway calls itself: `service.name`."""
EXPORT_SECONDS = 2
"""After which a collector that does not answer is given up; what it was sent is lost. No request waits for it."""
RUNTIME = {
    "tracing.opentelemetry.min_flush_spans": 128,  # by default every five spans are a request of their own
    "tracing.opentelemetry.flush_interval_ms": 1000,
}
HELD_SPANS = 4096
"""Beyond, each worker thread drops spans."""
TAGS = {
    "http.request.method": "%REQ(:METHOD)%",
    "url.path": "%PATH(NQ)%",
    "http.response.status_code": "%RESPONSE_CODE%",
    "gen_ai.request.model": f"%DYNAMIC_METADATA({MODEL_METADATA}:model)%",
    "holdfast.request_id": "%REQ(X-REQUEST-ID)%",
    "holdfast.tenant": f"%REQ({TENANT_HEADER})%",
    "holdfast.service": f"%REQ({SERVICE_HEADER})%",
    "holdfast.region": f"%RESP({REGION_HEADER})%",
    "holdfast.revision": f"%RESP({REVISION_HEADER})%",
    "holdfast.attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "holdfast.details": "%RESPONSE_CODE_DETAILS%",
}
"""Span attribute → what Envoy puts there. Nothing of a body but the model's name, no query, no credentials."""


def of_port(name: str, options: Options, *, begins: bool) -> Document:
    """What a port's connection manager needs for spans; nothing without an endpoint. `begins`: whether it may decide
    that a request is traced."""
    if not options.otlp_endpoint:
        return {}
    return {
        "tracing": {
            "spawn_upstream_span": True,
            "operation": "%REQ(:METHOD)% %PATH(NQ)%",
            "upstream_operation": "%REQ(:METHOD)% %UPSTREAM_CLUSTER%",
            # Envoy's own tag of the URL has its query, where careless clients put their keys.
            "max_path_tag_length": 0,
            "custom_tags": [
                {"tag": "holdfast.port", "literal": {"value": name}},
                *({"tag": tag, "value": value} for tag, value in TAGS.items()),
            ],
            "provider": provider(options, options.trace_sampling if begins else 0.0),
        },
        # A request keeps the id that its client gave it.
        "request_id_extension": {
            "typed_config": typed(
                "extensions.request_id.uuid.v3.UuidRequestIdConfig",
                pack_trace_reason=False,
                use_request_id_for_trace_sampling=False,
            )
        },
    }


def provider(options: Options, percent: float) -> Document:
    """OpenTelemetry's protocol over HTTP, to the collector; `percent` of the requests without a `traceparent`."""
    detectors = "tracers.opentelemetry.resource_detectors"
    attributes = parse_attributes(options.resource_attributes)
    config = typed(
        "config.trace.v3.OpenTelemetryConfig",
        service_name=SENDERS[options.role],
        sampler=sampler(percent),
        max_cache_size=HELD_SPANS,
        http_service={
            "http_uri": {
                "uri": parse_endpoint(options.otlp_endpoint).url,
                "cluster": COLLECTOR_CLUSTER,
                "timeout": f"{EXPORT_SECONDS}s",
            }
        },
    )
    if attributes:
        found = typed(f"extensions.{detectors}.v3.StaticConfigResourceDetectorConfig", attributes=attributes)
        config["resource_detectors"] = [{"name": f"envoy.{detectors}.static_config", "typed_config": found}]
    return {"name": "envoy.tracers.opentelemetry", "typed_config": config}


def sampler(percent: float) -> Document:
    """A share of the traces that begin here; in those that do not, whatever was decided where they began."""
    named, messages = "envoy.tracers.opentelemetry.samplers", "extensions.tracers.opentelemetry.samplers.v3"
    share = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
    begun = typed(f"{messages}.TraceIdRatioBasedSamplerConfig", sampling_percentage=share)
    wrapped = {"name": f"{named}.trace_id_ratio_based", "typed_config": begun}
    return {
        "name": f"{named}.parent_based",
        "typed_config": typed(f"{messages}.ParentBasedSamplerConfig", wrapped_sampler=wrapped),
    }


def collector(options: Options) -> list[Document]:
    """The collector's cluster, if there is one. Envoy starts without waiting for its name to be found."""
    if not options.otlp_endpoint:
        return []
    endpoint = parse_endpoint(options.otlp_endpoint)
    host = {"endpoint": {"address": socket_address(endpoint.host, endpoint.port)}}
    return [
        {
            "name": COLLECTOR_CLUSTER,
            "type": "STRICT_DNS",
            "connect_timeout": "1s",
            "wait_for_warm_on_init": False,
            "load_assignment": {"cluster_name": COLLECTOR_CLUSTER, "endpoints": [{"lb_endpoints": [host]}]},
        }
    ]
