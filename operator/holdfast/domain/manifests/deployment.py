"""The Deployment of a service's engines in this region."""

from __future__ import annotations

from typing import Any

from holdfast.api import names
from holdfast.api.llmservice import Engine, LLMServiceSpec
from holdfast.domain.engines import (
    COMMAND,
    ENGINES,
    FETCHED,
    LIVE_PATH,
    MODEL_CACHE,
    MODEL_ROOT,
    READY_PATH,
    EngineType,
    split_source,
)
from holdfast.domain.manifests.metadata import engine_name, metadata, selector
from holdfast.domain.observation import Observation, Telemetry
from holdfast.domain.plan import Work

DRAIN_MARGIN_SECONDS = 30
"""Time beyond the longest answer until a stopping engine is killed."""
STARTUP_LIMIT_SECONDS = 1800
"""Longest time until first readiness: pulling and loading hundreds of gigabytes takes many minutes."""


def deployment(seen: Observation, work: Work) -> dict[str, Any]:
    """Engines are replaced one at a time, a new one ready before an old one goes; the warm ones are among them."""
    service = seen.service
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(service, engine_name(service), names.ENGINE_COMPONENT),
        "spec": {
            "replicas": work.engines,
            "selector": {"matchLabels": selector(service)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "progressDeadlineSeconds": STARTUP_LIMIT_SECONDS + 60,
            "revisionHistoryLimit": 3,
            "template": {
                "metadata": {
                    "labels": {
                        **selector(service),
                        names.MANAGED_BY_LABEL: names.MANAGER,
                        names.REVISION_LABEL: work.revision,
                        names.REGION_LABEL: seen.region,
                    },
                },
                "spec": _pod(seen, work),
            },
        },
    }


def _pod(seen: Observation, work: Work) -> dict[str, Any]:
    spec = seen.service.spec
    engine = spec.engine
    grace = int(spec.traffic.max_stream.total_seconds()) + DRAIN_MARGIN_SECONDS
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": grace,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "topologySpreadConstraints": [
            _spread("kubernetes.io/hostname", seen),
            _spread("topology.kubernetes.io/zone", seen),
        ],
        "containers": [_container(seen, work)],
        "volumes": _volumes(spec),
        "securityContext": {
            "seccompProfile": {"type": "RuntimeDefault"},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
        },
    }
    if engine.node_selector:
        pod["nodeSelector"] = dict(engine.node_selector)
    if engine.tolerations:
        pod["tolerations"] = [dict(each) for each in engine.tolerations]
    if engine.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in engine.image_pull_secrets]
    return pod


def _spread(key: str, seen: Observation) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(seen.service)},
    }


def _container(seen: Observation, work: Work) -> dict[str, Any]:
    spec = seen.service.spec
    kind = ENGINES[spec.engine.type]
    container: dict[str, Any] = {
        "name": "engine",
        "image": work.image,
        "imagePullPolicy": seen.image_pull_policy,
        "command": list(COMMAND),
        "args": [*kind.arguments(spec), *spec.engine.args],
        "ports": [
            {"name": "http", "containerPort": names.ENGINE_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": names.ENGINE_GRPC_PORT, "protocol": "TCP"},
        ],
        "resources": _resources(spec.engine, kind),
        "volumeMounts": _mounts(spec),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_probes(),
    }
    if env := _environment(seen, work):
        container["env"] = env
    return container


def _environment(seen: Observation, work: Work) -> list[dict[str, Any]]:
    """How the engine tells of itself, where that was chosen; what the user sets goes before it."""
    told, service = seen.telemetry, seen.service
    wanted: dict[str, str] = {}
    if told.log_format != Telemetry().log_format:
        wanted["HOLDFAST_SERVE_LOG_FORMAT"] = told.log_format
    if told.endpoint:
        who = {"service": f"{service.namespace}/{service.name}", "region": seen.region, "revision": work.revision}
        wanted |= {
            "HOLDFAST_SERVE_OTLP_ENDPOINT": told.endpoint,
            "HOLDFAST_SERVE_TRACE_SAMPLING": f"{told.sampling:g}",
            "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"holdfast.{name}={value}" for name, value in who.items()),
        }
    own = [dict(each) for each in service.spec.engine.env]
    named = {each["name"] for each in own}
    return [{"name": name, "value": value} for name, value in wanted.items() if name not in named] + own


def _probes() -> dict[str, Any]:
    """Readiness answers in seconds; the restart of a live engine is the last resort and takes a minute of silence."""

    def probe(path: str, period: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": names.ENGINE_PORT, "scheme": "HTTP"},
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": probe(READY_PATH, 2, STARTUP_LIMIT_SECONDS // 2),
        "readinessProbe": probe(READY_PATH, 2, 2),
        "livenessProbe": probe(LIVE_PATH, 10, 6),
    }


def _resources(engine: Engine, kind: EngineType) -> dict[str, Any]:
    """What the user asks for, plus the accelerators (Kubernetes wants equal requests and limits for those)."""
    requests: dict[str, Any] = dict(engine.resources.requests) if engine.resources else {}
    limits: dict[str, Any] = dict(engine.resources.limits) if engine.resources else {}
    if kind.on_gpu and engine.gpu.per_replica:
        requests[engine.gpu.type] = limits[engine.gpu.type] = str(engine.gpu.per_replica)
    return {name: values for name, values in (("requests", requests), ("limits", limits)) if values}


def _volumes(spec: LLMServiceSpec) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if ENGINES[spec.engine.type].on_gpu:
        # Tensor-parallel workers exchange data through shared memory; a container's default of 64 MiB is too small.
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    scheme, rest = split_source(spec.model.source)
    if scheme in FETCHED:
        volumes.append({"name": "models-cache", "emptyDir": {}})  # stays while the container restarts
    if scheme == "pvc":
        claim = rest.partition("/")[0]
        volumes.append({"name": "models", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
    return volumes


def _mounts(spec: LLMServiceSpec) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    if ENGINES[spec.engine.type].on_gpu:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    scheme = split_source(spec.model.source)[0]
    if scheme in FETCHED:
        mounts.append({"name": "models-cache", "mountPath": MODEL_CACHE})
    if scheme == "pvc":
        mounts.append({"name": "models", "mountPath": MODEL_ROOT, "readOnly": True})
    return mounts
