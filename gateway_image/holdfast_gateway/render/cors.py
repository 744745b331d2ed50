"""Requests of browsers from pages of other origins: which pages may ask the client port.

Envoy answers preflights before keys count. Its filter does nothing where a route answers by itself, as the client
port's last route does until the body has been read; so these requests first have a route to a cluster, which none
of them ever takes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from holdfast.api.names import PRIORITY_HEADER, TIMEOUT_HEADER
from holdfast_gateway.render.answers import metadata
from holdfast_gateway.render.values import READY_CLUSTER, REGION_HEADER, Document, http_filter, typed

NAME = "envoy.filters.http.cors"
METHODS = "GET, POST, OPTIONS"
ASKED = f"authorization, content-type, x-api-key, api-key, x-request-id, {PRIORITY_HEADER}, {TIMEOUT_HEADER}"
SHOWN = (
    f"{REGION_HEADER}, x-request-id, retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, "
    "x-holdfast-resumable"
)
MAX_AGE = "3600"
"""Seconds for which a browser need not ask again."""


def filters(origins: Sequence[str]) -> list[Document]:
    """The filter, if there is any origin."""
    return [http_filter(NAME, "cors.v3.Cors")] if origins else []


def unread(origins: Sequence[str]) -> list[Document]:
    """The route of such requests until their bodies are read."""
    absent = [{**metadata(key, {"present_match": True}), "invert": True} for key in ("model", "problem")]
    known = {"name": "origin", "string_match": {"safe_regex": {"regex": pattern(origins)}}}
    match = {"prefix": "/", "headers": [known], "dynamic_metadata": absent}
    return [{"match": match, "route": {"cluster": READY_CLUSTER}}] if origins else []


def pattern(origins: Sequence[str]) -> str:
    """Matches the origins."""
    return "|".join(".*" if origin == "*" else re.escape(origin) for origin in origins)


def policy(origins: Sequence[str]) -> dict[str, Any]:
    """What a route table says to the filter. Cookies never count, so `*` gives nothing away."""
    if not origins:
        return {}
    allowed = typed(
        "extensions.filters.http.cors.v3.CorsPolicy",
        allow_origin_string_match=[{"safe_regex": {"regex": pattern(origins)}}],
        allow_methods=METHODS,
        allow_headers=ASKED,
        expose_headers=SHOWN,
        max_age=MAX_AGE,
    )
    return {"typed_per_filter_config": {NAME: allowed}}
