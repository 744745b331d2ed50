"""Base types of the API objects: immutable pydantic models in camelCase, and the scalars they share.

Unknown fields are ignored on reading, as an API server prunes them, so that an older operator can read an
object written for a newer one.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel


class Schema(BaseModel):
    """A frozen value with camelCase names on the wire and snake_case names in Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a wire value (camelCase). Raises pydantic.ValidationError, a ValueError."""
        return cls.model_validate(value)

    def wire(self) -> dict[str, Any]:
        """The wire form: camelCase, JSON types, fields that are None left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


def parse_duration(value: object) -> timedelta:
    """`"1m30s"` → timedelta. Units: ms, s, m, h, as in Kubernetes. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not re.match(DURATION_PATTERN, value):
        raise ValueError(f"{value!r} is not a duration; write for example 500ms, 2s, 5m or 1m30s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The shortest spelling that `parse_duration` reads back to the same value (resolution 1 ms)."""
    rest = round(value.total_seconds() * 1000)
    if rest == 0:
        return "0s"
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
"""A name usable as part of a Kubernetes object's name (RFC 1123 label)."""
