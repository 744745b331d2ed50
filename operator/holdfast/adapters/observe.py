"""Gathers one service's `Observation` from what the watches have brought: no request is made.

A watch lags behind the operator's own writes. `Written` remembers the answers to those, so that a decision never
sees an older state of an object than the operator itself has written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from holdfast.api import names
from holdfast.api.llmservice import LLMService, LLMServiceSpec, LLMServiceStatus
from holdfast.api.region import Region, RegionSpec
from holdfast.api.regionplan import RegionPlan, RegionPlanSpec
from holdfast.config import Config
from holdfast.domain.observation import Capabilities, Claim, Control, EnginePod, Manifest, Observation, Ref
from holdfast.mirror import version_of


class SpecUnreadable(ValueError):
    """The spec does not fit the types, although the API server took it: its CRD is of another version."""


@dataclass
class Written:
    """What the operator wrote last for one service, as the API server answered."""

    objects: dict[Ref, Manifest] = field(default_factory=dict)

    def newest(self, watched: Manifest) -> Manifest:
        """The newer of what was watched and what was written."""
        ref = Ref.of(watched)
        mine = self.objects.get(ref)
        if mine is None:
            return watched
        if version_of(mine) > version_of(watched) and mine["metadata"]["uid"] == watched["metadata"]["uid"]:
            return mine
        del self.objects[ref]
        return watched


@dataclass(frozen=True)
class Watched:
    """What the watches hold at this moment, as plain manifests."""

    service: Manifest
    children: Iterable[Manifest]
    pods: Iterable[EnginePod]
    regions: Iterable[Manifest]
    services: Iterable[Manifest]
    control: Control | None = None
    """What the regions have agreed on; None where this one stands alone."""


def now() -> datetime:
    """The time as conditions carry it: UTC, whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def gather(watched: Watched, written: Written, config: Config, capabilities: Capabilities) -> Observation:
    """One service's observation. Raises SpecUnreadable with a sentence."""
    service = parse_service(written.newest(watched.service))
    own = Ref.of(watched.service)
    children = {}
    for child in watched.children:
        if owned_by(child, service.uid):
            children[Ref.of(child)] = written.newest(child)
    # What was just created has not come back through the watch yet.
    children = {**{ref: each for ref, each in written.objects.items() if ref.kind != own.kind}, **children}
    return Observation(
        now=now(),
        region=config.region,
        service=service,
        regions=read_regions(watched.regions),
        engine_images=config.engine_images,
        image_pull_policy=config.image_pull_policy,
        telemetry=config.telemetry,
        capabilities=capabilities,
        claims=tuple(_claim(each) for each in watched.services if Ref.of(each) != own),
        children=children,
        pods=tuple(sorted(watched.pods, key=lambda pod: pod.name)),
        control=watched.control,
    )


def owned_by(manifest: Manifest, uid: str) -> bool:
    """Whether an object's controller is the one with this uid."""
    owners = manifest["metadata"].get("ownerReferences", ())
    return any(owner.get("controller") and owner["uid"] == uid for owner in owners)


def parse_service(manifest: Manifest) -> LLMService:
    """An `LLMService` from its manifest. Raises SpecUnreadable."""
    meta = manifest["metadata"]
    try:
        spec = LLMServiceSpec.parse(manifest["spec"])
    except ValidationError as error:
        raise SpecUnreadable(describe(error)) from error
    return LLMService(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta["generation"],
        created=meta["creationTimestamp"],
        spec=spec,
        status=parse_status(manifest),
    )


def parse_status(manifest: Manifest) -> LLMServiceStatus:
    """The last status; an unreadable one counts as none, for it is only ever derived."""
    try:
        return LLMServiceStatus.parse(manifest.get("status", {}))
    except ValidationError:
        return LLMServiceStatus()


def describe(error: ValidationError) -> str:
    """The first things that are wrong, as one sentence."""
    parts = [
        f"spec.{'.'.join(str(step) for step in each['loc'])}: {each['msg']}" for each in error.errors(include_url=False)
    ]
    return "; ".join(parts[:3]) + "."


def read_regions(manifests: Iterable[Manifest]) -> dict[str, Region]:
    """Every `Region` that can be read, by name; one of another version is as good as unknown."""
    found = {}
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        try:
            found[name] = Region(name=name, spec=RegionSpec.parse(manifest["spec"]))
        except (ValidationError, KeyError):
            continue
    return found


def read_plan(manifest: Manifest) -> RegionPlan | None:
    """A plan; one that cannot be read is as good as none."""
    meta = manifest["metadata"]
    try:
        return RegionPlan(
            namespace=meta["namespace"],
            name=meta["name"],
            resource_version=meta["resourceVersion"],
            generation=meta["generation"],
            spec=RegionPlanSpec.parse(manifest["spec"]),
        )
    except (ValidationError, KeyError):
        return None


def _claim(manifest: Manifest) -> Claim:
    meta = manifest["metadata"]
    model: Mapping[str, Any] = manifest.get("spec", {}).get("model", {})
    return Claim(f"{meta['namespace']}/{meta['name']}", str(model.get("name", "")), meta["creationTimestamp"])


LONGEST_WORDS = 1024
"""Characters of a termination message that are kept, from its end: conditions are for people."""


def engine_pod(manifest: Manifest) -> EnginePod:
    """What matters of a Pod, from its conditions and its engine container's state."""
    status = manifest.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    scheduled = conditions.get("PodScheduled", {})
    unschedulable = scheduled.get("status") == "False"
    container: dict[str, Any] = next(iter(status.get("containerStatuses", ())), {})
    waiting: dict[str, Any] = container.get("state", {}).get("waiting", {})
    now_ended: dict[str, Any] = container.get("state", {}).get("terminated", {})
    ended: dict[str, Any] = now_ended or container.get("lastState", {}).get("terminated", {})
    return EnginePod(
        name=manifest["metadata"]["name"],
        ready=conditions.get("Ready", {}).get("status") == "True",
        revision=manifest["metadata"].get("labels", {}).get(names.REVISION_LABEL, ""),
        waiting=waiting.get("reason", ""),
        message=scheduled.get("message", "") if unschedulable else waiting.get("message", ""),
        unschedulable=unschedulable,
        restarts=container.get("restartCount", 0),
        last_exit=f"{ended.get('reason', 'Error')} (exit code {ended.get('exitCode', '?')})" if ended else "",
        last_words=ended.get("message", "").strip()[-LONGEST_WORDS:],
    )
