"""Envoy's rate limit protocol (`envoy.service.ratelimit.v3`), and what of gRPC's health protocol is spoken here."""

from __future__ import annotations

from typing import Any

from holdfast_gateway.envoy_api.messages import message

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
HEALTH_METHOD = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""The answer to a health check of who is well, as it is on the wire."""

OK, OVER_LIMIT = 1, 2
"""Codes of an answer."""

SECONDS = {1: 1, 2: 60, 3: 3600, 4: 86_400}
"""Units of a limit: second, minute, hour, day. Months and years differ in length and are not counted here."""

Request: Any = message("envoy.service.ratelimit.v3.RateLimitRequest")
Response: Any = message("envoy.service.ratelimit.v3.RateLimitResponse")
ADMITTED: bytes = Response(overall_code=OK).SerializeToString()
"""The answer that says nothing but yes."""
