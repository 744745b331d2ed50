"""KServe's inference protocol through a gateway: its model stands in the path (HTTP) or in the first message (gRPC).

What of its calls names no model (is the server live, what can it do) goes to the first service that the asker may use.
Requests by gRPC go to the engines' other port; on their way there they are requests like all others.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from holdfast.api.names import ENGINE_GRPC_PORT
from holdfast.api.route import EngineProtocol, Route
from holdfast_gateway.options import Options
from holdfast_gateway.render.answers import View, with_headers
from holdfast_gateway.render.clusters import least_busy, upstream
from holdfast_gateway.render.endpoints import assignment
from holdfast_gateway.render.values import (
    Document,
    by_grpc,
    header,
    http_filter,
    kserve_cluster,
    socket_address,
)

SERVICE = "inference.GRPCInferenceService"
CALLS = {
    "ModelInfer": ("ModelInferRequest", "model_name"),
    "ModelStreamInfer": ("ModelInferRequest", "model_name"),
    "ModelReady": ("ModelReadyRequest", "name"),
    "ModelMetadata": ("ModelMetadataRequest", "name"),
    "ModelConfig": ("ModelConfigRequest", "name"),
}
"""gRPC method → its request's message, and the field of that which names the model; always the first one."""
STREAMING = frozenset({"ModelStreamInfer"})
EXTRACTION = "envoy.filters.http.grpc_field_extraction"
NOT_FOUND = 5
"""gRPC's status code."""
RETRY_ON = "unavailable,resource-exhausted"
GRPC = {"prefix": "application/grpc"}
"""How the content type of a gRPC request begins."""
IS_GRPC = {"name": "content-type", "string_match": GRPC}
ANY_MODEL = r"/v2(/health/(live|ready))?"
ANY_MODEL_GRPC = rf"/{re.escape(SERVICE)}/(ServerLive|ServerReady|ServerMetadata|RepositoryIndex)"


def read_message() -> Document:
    """Reads the model's name from the first message of a gRPC request."""
    methods: Document = {
        f"{SERVICE}.{call}": {"request_field_extractions": {name: {}}} for call, (_, name) in CALLS.items()
    }
    described = {"inline_bytes": base64.b64encode(descriptors()).decode()}
    return http_filter(
        EXTRACTION,
        "grpc_field_extraction.v3.GrpcFieldExtractionConfig",
        descriptor_set=described,
        extractions_by_method=methods,
    )


def descriptors() -> bytes:
    """As much of the protocol's descriptors as it takes to find the model's name."""
    described = FileDescriptorSet()
    file = described.file.add(name="inference.proto", package="inference", syntax="proto3")
    file.message_type.add(name="Answer")
    service = file.service.add(name=SERVICE.rpartition(".")[2])
    for message, name in sorted(set(CALLS.values())):
        text: Any = FieldDescriptorProto.TYPE_STRING
        field = file.message_type.add(name=message).field.add(name=name, number=1, type=text)
        field.label = FieldDescriptorProto.LABEL_OPTIONAL
    for call, (message, _) in CALLS.items():
        streaming = call in STREAMING
        service.method.add(
            name=call, input_type=f".inference.{message}", output_type=".inference.Answer",
            client_streaming=streaming, server_streaming=streaming,
        )  # fmt: skip
    return bytes(described.SerializeToString(deterministic=True))


def client_routes(route: Route, who: list[Document], to_service: Document) -> list[Document]:
    """The routes of one service, in the table that was chosen by the model of path or message, for requests with the
    headers `who`; `to_service` is the one of OpenAI's API."""
    return [
        to_service | {"match": with_headers({"prefix": "/v2/models/"}, who)},
        *(grpc(to_service, with_headers(of_message(field, route.model), who)) for field in fields()),
    ]


def fields() -> list[str]:
    """The fields that may name a model."""
    return sorted({field for _, field in CALLS.values()})


def of_message(field: str, model: str) -> Document:
    """Matches gRPC requests for one model."""
    named = {"list_match": {"one_of": {"string_match": {"exact": model}}}}
    found = {"filter": EXTRACTION, "path": [{"key": field}], "value": named}
    return {"prefix": f"/{SERVICE}/", "dynamic_metadata": [found]}


def others(seen: Sequence[View], to_service: Callable[[Route], Document]) -> list[Document]:
    """What names no model, or none that the asker sees."""
    found = []
    for view in seen:
        if view.first is not None:
            made = to_service(view.first)
            found.append(made | {"match": with_headers({"safe_regex": {"regex": ANY_MODEL}}, view.who)})
            found.append(grpc(made, with_headers({"safe_regex": {"regex": ANY_MODEL_GRPC}}, view.who)))
        found += unknown(view.who, view.models)
    return found


def unknown(who: list[Document], models: Sequence[str]) -> list[Document]:
    """The answer for other models than these, in the protocol's own form."""
    names = ", ".join(sorted(models)) or "none"
    message = f"This gateway does not serve that model. Models: {names}"
    by_http = {
        "match": with_headers({"prefix": "/v2/"}, who),
        "direct_response": {"status": 404, "body": {"inline_string": json.dumps({"error": message}) + "\n"}},
        "response_headers_to_add": [header("content-type", "application/json")],
    }
    by_grpc = {
        "match": with_headers({"prefix": f"/{SERVICE}/"}, who),
        "direct_response": {"status": 404, "body": {"inline_string": message}},
        "response_headers_to_add": [header("grpc-status", str(NOT_FOUND))],
    }
    return [by_http, by_grpc]


def cluster(route: Route, options: Options, revision: str | None = None) -> Document:
    """This region's engines by gRPC. Without health checks of its own: whether they live is asked at their other port,
    and one that refuses or is gone costs a retry beside it."""
    return least_busy(upstream(kserve_cluster(route.key, revision), options, EngineProtocol.H2C))


def endpoints(route: Route, local: Document, revision: str | None = None) -> Document:
    """The hosts of a cluster of engines, `local`, at their other port."""
    (engines,) = local["endpoints"]
    hosts = [at_port(host, ENGINE_GRPC_PORT) for host in engines["lb_endpoints"]]
    return assignment(kserve_cluster(route.key, revision), [{"lb_endpoints": hosts}])


def at_port(host: Document, port: int) -> Document:
    """The same host at another port."""
    address = host["endpoint"]["address"]["socket_address"]
    return host | {"endpoint": {"address": socket_address(address["address"], port)}}


def engine_route(to_engines: Document) -> Document:
    """To this region's engines by gRPC; `to_engines` is the route of requests by HTTP."""
    match, action = to_engines["match"], dict(to_engines["route"])
    if "cluster" in action:
        action["cluster"] = by_grpc(action["cluster"])
    else:
        shares = action["weighted_clusters"]
        by_share = [{**share, "name": by_grpc(share["name"])} for share in shares["clusters"]]
        action["weighted_clusters"] = {**shares, "clusters": by_share}
    return grpc(to_engines | {"route": action}, match | {"headers": [*match["headers"], IS_GRPC]})


def grpc(made: Document, match: Document) -> Document:
    """The route for requests by gRPC; retried after gRPC's own refusals, too, whose status by HTTP is 200."""
    action = made["route"]
    policy = action["retry_policy"]
    retried = policy | {"retry_on": f"{policy['retry_on']},{RETRY_ON}"}
    return made | {"match": match, "route": action | {"retry_policy": retried}}
