"""The file that Envoy starts from. It never changes while Envoy runs; the rest comes from other files."""

from __future__ import annotations

from holdfast_gateway.options import Options
from holdfast_gateway.render import clusters, limits, listeners, tracing
from holdfast_gateway.render.values import ADS, XDS_CLUSTER, Document, file_source, socket_address, typed

SOCKET = "xds.sock"
"""Where Envoy is served its resources, in its directory."""

LARGEST_PATTERN = 1_000_000
RUNTIME = {
    # Instructions of a compiled pattern. By default Envoy refuses more than 100: the names of some ten tenants.
    "re2.max_program_size.error_level": LARGEST_PATTERN,
    "re2.max_program_size.warn_level": LARGEST_PATTERN,
}


def connections(options: Options) -> Document:
    """How many clients may be connected at once; the listeners that are not for clients do not count theirs."""
    limit = typed(
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=options.max_connections,
    )
    return {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": limit}


def bootstrap(options: Options, listeners_file: str, socket: str) -> Document:
    """Admin interface, metrics port and where to find the rest: listeners in a file, what grows with the services at a
    socket; both are paths."""
    agent = [clusters.agent(options)] if options.status_port else []
    limiter = [limits.cluster(options)] if options.limits else []
    runtime = RUNTIME | (tracing.RUNTIME if options.otlp_endpoint else {})
    return {
        "node": {"id": f"holdfast-{options.role}", "cluster": f"holdfast-{options.role}"},
        "admin": {"address": socket_address("127.0.0.1", options.admin_port)},
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": typed("extensions.bootstrap.internal_listener.v3.InternalListener"),
            }
        ],
        "layered_runtime": {"layers": [{"name": "holdfast", "static_layer": runtime}]},
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": {"resource_monitors": [connections(options)]},
        "dynamic_resources": {
            "lds_config": file_source(listeners_file),
            "cds_config": ADS,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER}}],
            },
        },
        "static_resources": {
            "listeners": [listeners.metrics(options)],
            "clusters": [
                *(clusters.xds(socket), clusters.admin(options), clusters.ready()),
                *(*agent, *limiter, *tracing.collector(options)),
            ],
        },
    }
