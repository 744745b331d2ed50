"""What an agent must know after a restart while API servers or DNS are away; kept beside Envoy's files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.api.route import Route
from holdfast.mirror import one_line
from holdfast_gateway.files import replace

log = logging.getLogger(__name__)

NAME = "last-good.json"


@dataclass(frozen=True)
class Memory:
    """The last good state."""

    routes: Mapping[str, Mapping[str, Route]] = field(default_factory=dict)
    """API server (its kubeconfig, or `in-cluster`) → ConfigMap → route."""
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Host name → IP addresses."""


def remember(directory: Path, memory: Memory) -> None:
    """Stores it. Raises OSError."""
    routes = {source: {name: route.wire() for name, route in held.items()} for source, held in memory.routes.items()}
    replace(directory / NAME, json.dumps({"routes": routes, "addresses": memory.addresses}, indent=1))


def recall(directory: Path) -> Memory:
    """Reads it; nothing if there is none or it cannot be read."""
    try:
        stored = json.loads((directory / NAME).read_text())
        return Memory(
            routes={
                source: {name: Route.parse(route) for name, route in held.items()}
                for source, held in stored["routes"].items()
            },
            addresses={host: tuple(found) for host, found in stored["addresses"].items()},
        )
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the last good state cannot be read, starting without: %s", one_line(error))
        return Memory()
