"""What must be written so that the cluster holds exactly the wanted objects.

An object is written when its builder's output changed (a digest in an annotation tells) or when somebody changed
a field that Holdfast set. Fields that others add are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from holdfast.api.names import APPLIED_HASH_ANNOTATION
from holdfast.domain.observation import Manifest, Ref
from holdfast.domain.revision import digest


@dataclass(frozen=True)
class Apply:
    """Write this object."""

    manifest: Manifest
    created: bool
    """Whether it does not exist yet."""

    @property
    def ref(self) -> Ref:
        return Ref.of(self.manifest)


@dataclass(frozen=True)
class Delete:
    """Remove this object."""

    ref: Ref


Change = Apply | Delete


def changes(wanted: Iterable[Manifest], observed: Mapping[Ref, Manifest]) -> list[Change]:
    """The writes that lead from what is observed to what is wanted; none if nothing differs."""
    stamped = [_stamp(manifest) for manifest in wanted]
    result: list[Change] = []
    for manifest in stamped:
        current = observed.get(Ref.of(manifest))
        if current is None:
            result.append(Apply(manifest, created=True))
        elif not covers(current, manifest):
            result.append(Apply(manifest, created=False))
    keep = {Ref.of(manifest) for manifest in stamped}
    result += [Delete(ref) for ref in sorted(observed) if ref not in keep]
    return result


def _stamp(manifest: Manifest) -> dict[str, Any]:
    meta = manifest["metadata"]
    annotations = {**meta.get("annotations", {}), APPLIED_HASH_ANNOTATION: digest(manifest)}
    return {**manifest, "metadata": {**meta, "annotations": annotations}}


def covers(current: Any, wanted: Any) -> bool:
    """Whether everything in `wanted` is in `current` with the same value."""
    if isinstance(wanted, Mapping):
        return isinstance(current, Mapping) and all(
            key in current and covers(current[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(current, list | tuple)
            and len(current) == len(wanted)
            and all(covers(ours, theirs) for ours, theirs in zip(current, wanted, strict=True))
        )
    return bool(current == wanted) or _same_quantity(current, wanted)


_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|)")
_SCALE = {"m": Decimal("0.001"), "": Decimal(1)}
_SCALE |= {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTP", 1)}
_SCALE |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTP", 1)}


def _same_quantity(current: Any, wanted: Any) -> bool:
    """API servers rewrite quantities: what was sent as `1000m` or 1 is read back as `"1"`."""
    parts = [_QUANTITY.fullmatch(str(value)) for value in (current, wanted)]
    values = [Decimal(part[1]) * _SCALE[part[2]] for part in parts if part]
    return len(values) == 2 and values[0] == values[1]
