"""The life of one operator process: connect, register, run kopf until told to stop."""

from __future__ import annotations

import asyncio
import logging

import kopf

from holdfast.adapters import metrics
from holdfast.adapters.cluster import Cluster
from holdfast.config import Config
from holdfast.domain.observation import Capabilities
from holdfast.errors import ClusterError
from holdfast.handlers import register

log = logging.getLogger(__name__)


async def run(config: Config, kubeconfig: str | None = None) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError if there is no way to an API server."""
    cluster = await Cluster.connect(kubeconfig)
    try:
        capabilities = await _capabilities(cluster)
        registry = kopf.OperatorRegistry()
        register(registry, cluster, config, capabilities)
        if config.metrics_port:
            metrics.serve(config.metrics_port)
        health = f"http://0.0.0.0:{config.health_port}/healthz" if config.health_port else None
        log.info("operator of region %s starts", config.region)
        await kopf.operator(registry=registry, clusterwide=True, standalone=True, liveness_endpoint=health)
    finally:
        await cluster.close()


async def _capabilities(cluster: Cluster) -> Capabilities:
    """Asks until the API server answers: an operator that starts first must not give up."""
    while True:
        try:
            return await cluster.capabilities()
        except ClusterError as error:
            log.warning("the API server does not answer yet: %s", error)
            await asyncio.sleep(2)
