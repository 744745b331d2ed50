"""What of Envoy's rate limit protocol (`envoy.service.ratelimit.v3`) and of gRPC's health protocol is spoken here.

Only the fields that this service reads or writes are declared; on the wire a message is its fields' numbers, and what
is not declared is passed over. The package that has all of Envoy's messages, `xds-protos`, installs itself over
Envoy's own wheel: both are called `envoy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
HEALTH_METHOD = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""The answer to a health check of who is well, as it is on the wire."""

OK, OVER_LIMIT = 1, 2
"""Codes of an answer."""

SECONDS = {1: 1, 2: 60, 3: 3600, 4: 86_400}
"""Units of a limit: second, minute, hour, day. Months and years differ in length and are not counted here."""

Field = tuple[int, str]
"""Number; and type: one of `TYPES` or a message's name, with `*` after it for any number of them."""

MESSAGES: Mapping[str, Mapping[str, Field]] = {
    "Entry": {"key": (1, "text"), "value": (2, "text")},
    "Override": {"requests_per_unit": (1, "uint"), "unit": (2, "number")},
    "Amount": {"value": (1, "uint64")},
    "Descriptor": {"entries": (1, "Entry*"), "limit": (2, "Override"), "hits_addend": (3, "Amount")},
    "Request": {"domain": (1, "text"), "descriptors": (2, "Descriptor*"), "hits_addend": (3, "uint")},
    "Limit": {"requests_per_unit": (1, "uint"), "unit": (2, "number"), "name": (3, "text")},
    "Duration": {"seconds": (1, "int64"), "nanos": (2, "int32")},
    "Status": {
        "code": (1, "number"),
        "current_limit": (2, "Limit"),
        "limit_remaining": (3, "uint"),
        "duration_until_reset": (4, "Duration"),
    },
    "Header": {"key": (1, "text"), "value": (2, "text")},
    "Pair": {"key": (1, "text"), "value": (2, "Value")},
    "Value": {"text": (3, "text")},
    "Struct": {"fields": (1, "Pair*")},
    "Response": {
        "overall_code": (1, "number"),
        "statuses": (2, "Status*"),
        "response_headers_to_add": (3, "Header*"),
        "dynamic_metadata": (6, "Struct"),
    },
}
PACKAGE = "holdfast.limiter"

kinds = descriptor_pb2.FieldDescriptorProto
TYPES = {
    "uint": kinds.TYPE_UINT32,
    "uint64": kinds.TYPE_UINT64,
    "int32": kinds.TYPE_INT32,
    "int64": kinds.TYPE_INT64,
    "number": kinds.TYPE_INT32,  # an enumeration's
    "text": kinds.TYPE_STRING,
}


def described() -> Any:
    """The messages in protobuf's own form."""
    file = descriptor_pb2.FileDescriptorProto(name="holdfast/limiter.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            made = message.field.add(name=field, number=number)
            made.label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            made.type = TYPES.get(kind, kinds.TYPE_MESSAGE)
            if kind in MESSAGES:
                made.type_name = f".{PACKAGE}.{kind}"
    return file


_made = message_factory.GetMessages([described()], pool=descriptor_pool.DescriptorPool())
Request: Any = _made[f"{PACKAGE}.Request"]
Response: Any = _made[f"{PACKAGE}.Response"]
ADMITTED: bytes = Response(overall_code=OK).SerializeToString()
"""The answer that says nothing but yes."""
