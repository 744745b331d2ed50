"""How many engines a region is to run, with the service's defaults filled in."""

from __future__ import annotations

from holdfast.api.llmservice import LLMServiceSpec, ServiceRegion


def replicas_of(spec: LLMServiceSpec, region: ServiceRegion) -> tuple[int, int]:
    """(least, most) engines of a region. Without an explicit maximum anywhere it equals the minimum."""
    own, default = region.replicas, spec.defaults.replicas
    least = own.min if own and own.min is not None else default.min
    most = own.max if own and own.max is not None else default.max
    return least, least if most is None else most
