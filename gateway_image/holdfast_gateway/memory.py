"""What an agent must know after a restart while API servers or DNS are away; kept beside Envoy's files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from holdfast.api.route import Route
from holdfast.api.schema import Schema
from holdfast.mirror import one_line
from holdfast_gateway.files import replace
from holdfast_gateway.issuers import Issuer
from holdfast_gateway.tenants import Tenant

log = logging.getLogger(__name__)
S = TypeVar("S", bound=Schema)

NAME = "last-good.json"
SECRETS_NAME = "last-good-secrets.json"
"""What only its owner may read."""


@dataclass(frozen=True)
class Memory:
    """The last good state."""

    routes: Mapping[str, Mapping[str, Route]] = field(default_factory=dict)
    """API server (its kubeconfig, or `in-cluster`) → ConfigMap → route."""
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Host name → IP addresses."""
    tenants: Mapping[str, Mapping[str, Tenant]] = field(default_factory=dict)
    """API server → Secret → tenant."""
    issuers: Mapping[str, Mapping[str, Issuer]] = field(default_factory=dict)
    """API server → Secret → issuer of tokens."""


def remember(directory: Path, memory: Memory) -> None:
    """Stores it. Raises OSError."""
    replace(directory / NAME, json.dumps({"routes": wire(memory.routes), "addresses": memory.addresses}, indent=1))
    if memory.tenants or memory.issuers or (directory / SECRETS_NAME).exists():
        secrets = {"tenants": wire(memory.tenants), "issuers": wire(memory.issuers)}
        replace(directory / SECRETS_NAME, json.dumps(secrets, indent=1), private=True)


def wire(known: Mapping[str, Mapping[str, Schema]]) -> dict[str, dict[str, Any]]:
    """API server → object → its wire form."""
    return {source: {name: each.wire() for name, each in held.items()} for source, held in known.items()}


def recall(directory: Path) -> Memory:
    """Reads it; nothing of what is not there or cannot be read."""
    found = read(directory / NAME, routes_and_addresses)
    secrets = read(directory / SECRETS_NAME, tenants_and_issuers)
    return Memory(found.routes, found.addresses, secrets.tenants, secrets.issuers)


def read(path: Path, parse: Callable[[Any], Memory]) -> Memory:
    """A part of the memory; an empty one if there is none or it cannot be read."""
    try:
        return parse(json.loads(path.read_text()))
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the last good state in %s cannot be read, starting without: %s", path.name, one_line(error))
        return Memory()


def routes_and_addresses(stored: Any) -> Memory:
    """Raises ValueError, TypeError, KeyError or AttributeError."""
    addresses = {host: tuple(found) for host, found in stored["addresses"].items()}
    return Memory(parsed(Route, stored["routes"]), addresses)


def tenants_and_issuers(stored: Any) -> Memory:
    """Raises as the other one does."""
    return Memory(tenants=parsed(Tenant, stored["tenants"]), issuers=parsed(Issuer, stored["issuers"]))


def parsed(kind: type[S], stored: Any) -> Mapping[str, Mapping[str, S]]:
    """API server → object → what it holds."""
    return {source: {name: kind.parse(each) for name, each in held.items()} for source, held in stored.items()}
