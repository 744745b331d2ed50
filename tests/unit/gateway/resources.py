"""What Envoy is served, found in the files of a gateway."""

from __future__ import annotations

from typing import Any

from holdfast_gateway.render.files import RESOURCES, Files
from holdfast_gateway.render.tables import table_name

CLUSTER, ENDPOINTS, TABLE, SCOPE = "Cluster", "ClusterLoadAssignment", "RouteConfiguration", "ScopedRouteConfiguration"


def served(built: Files) -> dict[tuple[str, str], dict[str, Any]]:
    """Kind and name → resource; none is in two files."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, document in built.items():
        for each in document["resources"] if RESOURCES.fullmatch(name) else ():
            place = each["@type"].rpartition(".")[2], each.get("cluster_name") or each["name"]
            assert place not in found
            found[place] = each
    return found


def of_kind(built: Files, kind: str) -> list[dict[str, Any]]:
    """All resources of one kind."""
    return [each for (found, _), each in served(built).items() if found == kind]


def table(built: Files, port: str, key: str = "") -> list[dict[str, Any]]:
    """The routes of a service at a port, or those of what names none."""
    found: list[dict[str, Any]] = served(built)[TABLE, table_name(port, key)]["virtual_hosts"][0]["routes"]
    return found


def tables(built: Files, port: str) -> list[dict[str, Any]]:
    """The routes of all tables of a port."""
    return [
        route
        for each in of_kind(built, TABLE)
        if each["name"].startswith(f"{port}/")
        for route in each["virtual_hosts"][0]["routes"]
    ]


def changed(before: Files, after: Files) -> set[tuple[str, str]]:
    """Kind and name of the resources that differ; the other files must not."""
    assert {name for name in before if not RESOURCES.fullmatch(name) and before[name] != after[name]} == set()
    one, other = served(before), served(after)
    return {place for place in one.keys() | other.keys() if one.get(place) != other.get(place)}
