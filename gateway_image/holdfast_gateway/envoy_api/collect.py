"""Collects the descriptors of Envoy's messages that `messages` needs, out of the package `xds-protos`.

That package cannot be installed beside the gateway: it brings its own `envoy` and `opentelemetry`. So what is needed of
it is a file here, made by `make envoy-messages`: names, numbers and types of the fields, without options and texts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

HERE = Path(__file__).with_name("envoy.binpb")
NEEDED = (
    "envoy.config.cluster.v3.cluster_pb2:Cluster",
    "envoy.config.endpoint.v3.endpoint_pb2:ClusterLoadAssignment",
    "envoy.config.route.v3.route_pb2:RouteConfiguration",
    "envoy.config.route.v3.scoped_route_pb2:ScopedRouteConfiguration",
    "envoy.extensions.clusters.aggregate.v3.cluster_pb2:ClusterConfig",
    "envoy.extensions.filters.http.cors.v3.cors_pb2:CorsPolicy",
    "envoy.extensions.filters.http.lua.v3.lua_pb2:LuaPerRoute",
    "envoy.extensions.filters.http.transform.v3.transform_pb2:TransformConfig",
    "envoy.extensions.load_balancing_policies.least_request.v3.least_request_pb2:LeastRequest",
    "envoy.extensions.load_balancing_policies.maglev.v3.maglev_pb2:Maglev",
    "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2:PreviousHostsPredicate",
    "envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2:PreviousPrioritiesConfig",
    "envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2:RawBuffer",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2:UpstreamTlsContext",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2:HttpProtocolOptions",
    "envoy.service.discovery.v3.discovery_pb2:DeltaDiscoveryRequest",
    "envoy.service.discovery.v3.discovery_pb2:DeltaDiscoveryResponse",
    "envoy.service.ratelimit.v3.rls_pb2:RateLimitRequest",
    "envoy.service.ratelimit.v3.rls_pb2:RateLimitResponse",
)
"""Module and message."""


def collect(folder: str) -> FileDescriptorSet:
    """The descriptors, from the package unpacked in a folder. Raises ImportError."""
    sys.path.insert(0, folder)
    found: dict[str, Descriptor | EnumDescriptor] = {}
    for each in NEEDED:
        module, _, name = each.partition(":")
        visit(getattr(import_module(module), name).DESCRIPTOR, found)
    files: dict[str, FileDescriptorProto] = {}
    needed = {each.file.name: each.file for each in found.values()}
    for name in sorted(needed):
        add(needed[name], found, files)
    return FileDescriptorSet(file=files.values())


def visit(kind: Descriptor | EnumDescriptor, found: dict[str, Descriptor | EnumDescriptor]) -> None:
    """Notes a type and whatever types its fields have."""
    if kind.full_name in found:
        return
    found[kind.full_name] = kind
    for each in used(kind):
        visit(each, found)


def used(kind: Descriptor | EnumDescriptor) -> Iterator[Descriptor | EnumDescriptor]:
    """The types that a type needs: those of its fields, and the one that it stands in."""
    if kind.containing_type is not None:
        yield kind.containing_type
    for field in getattr(kind, "fields", ()):
        if field.message_type is not None:
            yield field.message_type
        if field.enum_type is not None:
            yield field.enum_type


def add(file: FileDescriptor, found: dict[str, Any], files: dict[str, FileDescriptorProto]) -> None:
    """Adds a file with what was found of it, behind the files that it needs."""
    if file.name in files:
        return
    whole = FileDescriptorProto()
    file.CopyToProto(whole)
    # Extensions of options are not needed, as there are no options.
    made = FileDescriptorProto(name=whole.name, package=whole.package, syntax=whole.syntax)
    messages = (each for each in whole.message_type if f"{file.package}.{each.name}" in found)
    made.message_type.extend(kept(each, file.package, found) for each in messages)
    made.enum_type.extend(each for each in whole.enum_type if f"{file.package}.{each.name}" in found)
    needed = {
        other.file.name: other.file
        for name, kind in found.items()
        if kind.file.name == file.name
        for other in used(kind)
        if other.file.name != file.name
    }
    for name in sorted(needed):
        add(needed[name], found, files)
    made.dependency.extend(sorted(needed))
    files[file.name] = without_options(made)


def kept(message: DescriptorProto, scope: str, found: dict[str, Any]) -> DescriptorProto:
    """The message with those of the types in it that were found."""
    name = f"{scope}.{message.name}"
    made = DescriptorProto()
    made.CopyFrom(message)
    del made.nested_type[:], made.enum_type[:]
    made.nested_type.extend(kept(each, name, found) for each in message.nested_type if f"{name}.{each.name}" in found)
    made.enum_type.extend(each for each in message.enum_type if f"{name}.{each.name}" in found)
    return made


def without_options(made: Any) -> Any:
    """The same without options, but for those that are part of the format: maps and packed fields."""
    for descriptor, value in made.ListFields():
        if descriptor.name == "options":
            plain = type(value)()
            for name in ("map_entry", "packed"):
                if name in value.DESCRIPTOR.fields_by_name and value.HasField(name):
                    setattr(plain, name, getattr(value, name))
            value.CopyFrom(plain)
            if not plain.ListFields():
                made.ClearField("options")
        elif descriptor.message_type is not None:
            for each in value if descriptor.is_repeated else [value]:
                without_options(each)
    return made


if __name__ == "__main__":
    HERE.write_bytes(collect(sys.argv[1]).SerializeToString(deterministic=True))
