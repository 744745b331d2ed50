"""Secrets of people, read with suspicion: no content stops the agent, and no message holds a part of it. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import yaml

from holdfast.mirror import KubernetesObject, identity, one_line

T = TypeVar("T")
UNUSABLE = (ValueError, TypeError, AttributeError, KeyError, RecursionError, yaml.YAMLError)


@dataclass(frozen=True)
class Read(Generic[T]):
    """What a complete list of Secrets holds."""

    found: Mapping[str, T]
    """Secret (`namespace/name`) → its content, or the last good one if it cannot be read now."""
    problems: tuple[str, ...]
    """A sentence for each Secret that cannot be read."""


def read_secrets(
    what: str, parse: Callable[[KubernetesObject], T], secrets: Iterable[KubernetesObject], last_good: Mapping[str, T]
) -> Read[T]:
    """Reads all; one that `parse` finds unusable is reported, and its last good version stays."""
    found: dict[str, T] = {}
    problems = []
    for secret in secrets:
        name = identity(secret)
        try:
            found[name] = parse(secret)
        except UNUSABLE as error:
            kept = "its last good version stays" if name in last_good else "it is left out"
            problems.append(f"Secret {name} holds no usable {what}, {kept}: {one_line(error)}")
            if name in last_good:
                found[name] = last_good[name]
    return Read(found, tuple(problems))


def text_of(secret: KubernetesObject, entry: str) -> str:
    """An entry's text, empty without that entry. Raises ValueError, which does not hold it."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(entry, ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, TypeError):
        raise ValueError(f"its entry {entry} is not text") from None
