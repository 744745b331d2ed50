"""Applies an `LLMService` in every region and waits until each of them serves it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from kubernetes.config import new_client_from_config
from pydantic import ValidationError
from urllib3.exceptions import HTTPError

from holdfast.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from holdfast.api.names import GROUP, VERSION

from .errors import ServiceError

FIELD_MANAGER = "holdfast-demo"
PLURAL = "llmservices"
SERVE_SECONDS = 600.0
PAUSE_SECONDS = 1.0
ASK_SECONDS = 10.0
EVENTS_SHOWN = 12


@dataclass(frozen=True)
class Service:
    """A service as its file describes it."""

    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.manifest["metadata"].get("namespace", "default"))

    @property
    def model(self) -> str:
        """What requests put into their field `model`."""
        return str(self.manifest["spec"]["model"]["name"])


def read_service(path: Path) -> Service:
    """The one service in a file; ServiceError if there is none."""
    try:
        manifest = yaml.safe_load(path.read_text())
        service = Service(manifest)
        if manifest["kind"] != "LLMService" or not service.name or not service.model:
            raise ServiceError(f"{path} holds a {manifest['kind']}, not an LLMService.")
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise ServiceError(f"{path} cannot be read as an LLMService: {error}") from error
    return service


class RegionalService:
    """The service in one region."""

    def __init__(self, region: str, kubeconfig: Path, service: Service) -> None:
        self.region = region
        self._service = service
        self._api = new_client_from_config(config_file=str(kubeconfig))

    def apply(self) -> None:
        """Create the service or bring it to what the file says."""
        service = self._service
        try:
            client.CustomObjectsApi(self._api).patch_namespaced_custom_object(
                GROUP, VERSION, service.namespace, PLURAL, service.name, service.manifest,
                field_manager=FIELD_MANAGER, force=True,
                _content_type="application/apply-patch+yaml", _request_timeout=ASK_SECONDS,
            )  # fmt: skip
        except (client.ApiException, HTTPError) as error:
            raise ServiceError(f"{self.region} refused the service {service.name}: {_said(error)}") from error

    def conditions(self) -> tuple[Condition, ...]:
        """Its conditions that were decided for the present spec; empty when the API server does not answer."""
        service = self._service
        try:
            found: Any = client.CustomObjectsApi(self._api).get_namespaced_custom_object(
                GROUP, VERSION, service.namespace, PLURAL, service.name, _request_timeout=ASK_SECONDS
            )
            conditions = [Condition.model_validate(raw) for raw in found.get("status", {}).get("conditions", [])]
        except (client.ApiException, HTTPError, ValidationError):
            return ()
        return tuple(one for one in conditions if one.observed_generation == found["metadata"]["generation"])

    def events(self) -> list[str]:
        """What happened last in the service's namespace, oldest first."""
        try:
            found = client.CoreV1Api(self._api).list_namespaced_event(
                self._service.namespace, _request_timeout=ASK_SECONDS
            )
        except (client.ApiException, HTTPError) as error:
            return [f"no events: {_said(error)}"]
        ordered = sorted(found.items, key=lambda event: str(event.last_timestamp or event.event_time or ""))
        return [
            f"{event.type} {event.involved_object.kind}/{event.involved_object.name} {event.reason}: {event.message}"
            for event in ordered[-EVENTS_SHOWN:]
        ]

    @property
    def version(self) -> str:
        """Kubernetes' version in this region."""
        try:
            return str(client.VersionApi(self._api).get_code(_request_timeout=ASK_SECONDS).git_version)
        except (client.ApiException, HTTPError):
            return "unknown"


def is_serving(conditions: Iterable[Condition]) -> bool:
    """Whether engines of that very region take requests."""
    return any(
        one.type == ConditionType.AVAILABLE and one.status is ConditionStatus.TRUE and one.reason == Reason.SERVING
        for one in conditions
    )


def wait_until_serving(
    regions: Iterable[RegionalService], update: Callable[[str], None], seconds: float = SERVE_SECONDS
) -> None:
    """Return when every region serves; after `seconds`, a ServiceError with the conditions and events of the rest."""
    waiting = list(regions)
    end = time.monotonic() + seconds
    while True:
        seen = {region: region.conditions() for region in waiting}
        waiting = [region for region, conditions in seen.items() if not is_serving(conditions)]
        if not waiting:
            return
        if time.monotonic() > end:
            raise ServiceError(_explained(seen, seconds))
        update("; ".join(f"{region.region}: {_stage(seen[region])}" for region in waiting))
        time.sleep(PAUSE_SECONDS)


def _stage(conditions: Iterable[Condition]) -> str:
    """How far a region is, in one word."""
    available = [one.reason for one in conditions if one.type == ConditionType.AVAILABLE]
    return available[0] if available else "waiting for the operator"


def _explained(seen: Mapping[RegionalService, tuple[Condition, ...]], seconds: float) -> str:
    lines = [f"The service does not serve in every region after {seconds:.0f} s."]
    for region, conditions in seen.items():
        if is_serving(conditions):
            continue
        lines.append(f"{region.region}, conditions:")
        lines += [f"  {one.type}={one.status} {one.reason}: {one.message}" for one in conditions] or ["  none"]
        lines += [f"{region.region}, last events:", *(f"  {event}" for event in region.events() or ["none"])]
    return "\n".join(lines)


def _said(error: Exception) -> str:
    """An API server's refusal without its headers."""
    if isinstance(error, client.ApiException) and error.body:
        try:
            return str(json.loads(error.body)["message"])
        except (ValueError, LookupError, TypeError):
            return f"{error.status} {error.reason}"
    return str(error)
