"""What people asked of the regions, read from the annotations of all clusters' `Region` objects.

An order may be given in any cluster. The latest moment wins, a drain at the same moment over its end; `true` asks for a
drain for as long as it stands there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from holdfast.api import names
from holdfast.domain.failover import Order

ALWAYS = datetime.max.replace(tzinfo=UTC)
NEVER = datetime.min.replace(tzinfo=UTC)


def order(annotations: Iterable[Mapping[str, str]]) -> Order:
    """The order that holds for one region; one item for each cluster's `Region` object of it."""
    seen = list(annotations)
    drain = max((moment(each.get(names.DRAIN_ANNOTATION)) for each in seen), default=NEVER)
    undrain = max((moment(each.get(names.UNDRAIN_ANNOTATION)) for each in seen), default=NEVER)
    override = any(each.get(names.OVERRIDE_ANNOTATION) == "true" for each in seen)
    return Order(drain=drain > NEVER and drain >= undrain, override=override)


def moment(value: str | None) -> datetime:
    """The moment in an annotation; one that cannot be read asks for nothing."""
    if value == "true":
        return ALWAYS
    try:
        found = datetime.fromisoformat((value or "").replace("Z", "+00:00"))
    except ValueError:
        return NEVER
    return found if found.tzinfo else found.replace(tzinfo=UTC)
