"""The operator's settings, from flags or `HOLDFAST_…` environment variables; see `holdfast operator --help`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from holdfast.api import names
from holdfast.domain.observation import Telemetry
from holdfast.errors import ConfigError


@dataclass(frozen=True)
class Config:
    """What one operator process must know beside the objects it reads."""

    region: str
    """Name of the `Region` that this operator's cluster is."""
    namespace: str = names.NAMESPACE
    """Namespace of the operator, the Lease and the Secrets with the peers' kubeconfigs; the same in every region."""
    engine_images: dict[str, str] = field(default_factory=dict)
    """Default container image of each engine type."""
    image_pull_policy: str = "IfNotPresent"
    """Pull policy of the engines' containers."""
    telemetry: Telemetry = field(default_factory=Telemetry)
    """How engines tell of themselves."""
    lease_seconds: float = 15.0
    """How long the leader's Lease must be seen unchanged before another operator may take it."""
    renew_deadline_seconds: float = 10.0
    """How long a leader goes on without having renewed its Leases at a majority."""
    retry_seconds: float = 2.0
    """How often Leases are read and renewed."""
    resync_seconds: float = 300.0
    """A service is looked at again after this time even if no event asked for it."""
    metrics_port: int = 9090
    """TCP port of `/metrics`; 0 serves none."""
    health_port: int = 8090
    """TCP port of `/healthz`; 0 serves none."""
    peer_tls: Path | None = None
    """Folder with `tls.crt`, `tls.key` and `ca.crt`, where gateways demand mutual TLS of each other."""

    def __post_init__(self) -> None:
        if not self.lease_seconds > self.renew_deadline_seconds > 2 * self.retry_seconds > 0:
            raise ConfigError(
                f"A leader must stop before its Lease is taken: --lease-seconds ({self.lease_seconds:g}) must exceed "
                f"--renew-deadline-seconds ({self.renew_deadline_seconds:g}), and that twice --retry-seconds "
                f"({self.retry_seconds:g})."
            )


def parse_engine_images(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("vllm=repo/image:tag", …)` as a mapping. Raises ConfigError."""
    images = {}
    for pair in pairs:
        engine, separator, image = pair.partition("=")
        if not (separator and engine and image):
            raise ConfigError(
                f"--engine-image {pair!r} is not of the form TYPE=IMAGE, for example vllm=holdfast/engine-vllm:0.1.0"
            )
        images[engine] = image
    return images
