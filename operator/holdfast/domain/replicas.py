"""How many engines a region is to run, with the service's defaults filled in.

Replicas take requests. Warm engines come on top: initialised, not routed, promoted by routing them.
"""

from __future__ import annotations

from holdfast.api.llmservice import LLMServiceSpec, ServiceRegion


def replicas_of(spec: LLMServiceSpec, region: ServiceRegion) -> tuple[int, int]:
    """(least, most) engines of a region that take requests.

    Without an explicit maximum anywhere it is the minimum and the warm ones: each may be promoted, none is started.
    """
    own, default = region.replicas, spec.defaults.replicas
    least = own.min if own and own.min is not None else default.min
    most = own.max if own and own.max is not None else default.max
    return least, least + _warm(spec, region, least) if most is None else most


def warm_of(spec: LLMServiceSpec, region: ServiceRegion) -> int:
    """Warm engines of a region while all regions serve; 0 where it runs no replicas, as no traffic is sent there.

    The maximum does not bound them: those beyond it stand in for engines of their own region only.
    """
    return _warm(spec, region, replicas_of(spec, region)[0])


def _warm(spec: LLMServiceSpec, region: ServiceRegion, least: int) -> int:
    warm = spec.defaults.warm if region.warm is None else region.warm
    return warm if least else 0
