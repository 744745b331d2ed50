"""What an agent must know after a restart while API servers or DNS are away; kept beside Envoy's files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.api.route import Route
from holdfast.mirror import one_line
from holdfast_gateway.files import replace
from holdfast_gateway.tenants import Tenant

log = logging.getLogger(__name__)

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


def remember(directory: Path, memory: Memory) -> None:
    """Stores it. Raises OSError."""
    routes = {source: {name: route.wire() for name, route in held.items()} for source, held in memory.routes.items()}
    replace(directory / NAME, json.dumps({"routes": routes, "addresses": memory.addresses}, indent=1))
    tenants = {source: {name: each.wire() for name, each in held.items()} for source, held in memory.tenants.items()}
    if tenants or (directory / SECRETS_NAME).exists():
        replace(directory / SECRETS_NAME, json.dumps({"tenants": tenants}, indent=1), private=True)


def recall(directory: Path) -> Memory:
    """Reads it; nothing of what is not there or cannot be read."""
    found = read(directory / NAME, lambda stored: Memory(routes_of(stored), addresses_of(stored)))
    secrets = read(directory / SECRETS_NAME, lambda stored: Memory(tenants=tenants_of(stored)))
    return Memory(found.routes, found.addresses, secrets.tenants)


def read(path: Path, parse: Callable[[Any], Memory]) -> Memory:
    """A part of the memory; an empty one if there is none or it cannot be read."""
    try:
        return parse(json.loads(path.read_text()))
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the last good state in %s cannot be read, starting without: %s", path.name, one_line(error))
        return Memory()


def routes_of(stored: Any) -> Mapping[str, Mapping[str, Route]]:
    """Raises ValueError, TypeError, KeyError or AttributeError, as do the other two."""
    return {
        source: {name: Route.parse(route) for name, route in held.items()} for source, held in stored["routes"].items()
    }


def addresses_of(stored: Any) -> Mapping[str, tuple[str, ...]]:
    """Host name → IP addresses."""
    return {host: tuple(found) for host, found in stored["addresses"].items()}


def tenants_of(stored: Any) -> Mapping[str, Mapping[str, Tenant]]:
    """API server → Secret → tenant."""
    return {
        source: {name: Tenant.parse(each) for name, each in held.items()} for source, held in stored["tenants"].items()
    }
