"""The messages, by their full names."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

DESCRIPTORS = Path(__file__).with_name("envoy.binpb")
"""Made by `collect`, which says of which messages."""


@cache
def pool() -> DescriptorPool:
    """What is known of them; apart from what other libraries know."""
    found = DescriptorPool()
    for file in FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        found.Add(file)
    return found


@cache
def message(name: str) -> Any:
    """A message's class. Raises KeyError."""
    return GetMessageClass(pool().FindMessageTypeByName(name))
