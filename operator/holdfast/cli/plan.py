"""`holdfast plan`: what the leader would write for services and regions that are files. No cluster is asked.

The same checks refuse what cannot be carried out, and the same functions decide.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from holdfast.adapters.observe import SpecUnreadable, describe, parse_service
from holdfast.api.conditions import Reason
from holdfast.api.llmservice import LLMService
from holdfast.api.names import API_VERSION
from holdfast.api.region import Region, RegionSpec, Verdict
from holdfast.api.regionplan import RegionPlanSpec
from holdfast.cli.columns import engines, paragraph, table
from holdfast.cli.show import decision_sentence
from holdfast.config import parse_engine_images
from holdfast.domain.accept import accept
from holdfast.domain.capacity import missing_engines
from holdfast.domain.failover import Order
from holdfast.domain.health import Judgement
from holdfast.domain.lead import Service, lead
from holdfast.domain.observation import Claim, Observation, Version
from holdfast.domain.revision import digest
from holdfast.errors import ConfigError, HoldfastError

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Assumed:
    """What is taken to be the case beside the files."""

    now: datetime
    engine_images: Mapping[str, str] = field(default_factory=dict)
    unhealthy: tuple[str, ...] = ()
    """Regions that a majority sees fail; all others are seen answering."""
    drained: tuple[str, ...] = ()
    """Regions that somebody asked to drain."""


@dataclass(frozen=True)
class Planned:
    """What would be planned for one service."""

    service: str
    plans: Mapping[str, RegionPlanSpec] = field(default_factory=dict)
    """By region; empty where the spec is refused."""
    missing: int = 0
    """Engines of drained regions that no other region may run in their place."""
    refused: str = ""
    """Reason and sentence; empty where the spec is accepted."""


def plan_files(documents: Iterable[Manifest], assumed: Assumed) -> list[Planned]:
    """The plans for every `LLMService` of the documents, in their order. Raises ConfigError where one is unreadable."""
    known = [each for each in documents if each.get("apiVersion") == API_VERSION]
    regions = {region.name: region for region in map(_region, (each for each in known if each["kind"] == "Region"))}
    for name in (*assumed.unhealthy, *assumed.drained):
        if name not in regions:
            raise ConfigError(f"There is no region {name}; the files have: {', '.join(regions) or 'none'}.")
    found = [_complete(each, at) for at, each in enumerate(known) if each["kind"] == "LLMService"]
    claims = {_key(each): Claim(_key(each), _model(each), each["metadata"]["creationTimestamp"]) for each in found}
    return [_plan(each, regions, claims, assumed) for each in found]


def _plan(manifest: Manifest, regions: Mapping[str, Region], claims: Mapping[str, Claim], assumed: Assumed) -> Planned:
    name = _key(manifest)
    try:
        service = parse_service(manifest)
    except SpecUnreadable as error:
        return Planned(name, refused=f"{Reason.SPEC_INVALID}: {error}")
    verdict = accept(
        _observation(service, regions, [each for each in claims.values() if each.service != name], assumed)
    )
    if not verdict.accepted:
        return Planned(name, refused=f"{verdict.reason}: {verdict.message}")
    decided = lead(
        Service(
            now=assumed.now,
            region=min(regions.values(), key=lambda each: (-each.spec.preference, each.name)).name,
            epoch=1,
            name=service.name,
            version=Version(0, 1, digest(manifest["spec"])),
            spec=service.spec,
            regions=regions,
            engine_images=assumed.engine_images,
            health={each: _judgement(each, assumed.unhealthy) for each in regions},
            orders={each: Order(drain=True) for each in assumed.drained},
        )
    )
    traffic = next(iter(decided.plans.values())).traffic
    return Planned(name, decided.plans, missing_engines(service.spec, traffic))


def _observation(
    service: LLMService, regions: Mapping[str, Region], claims: Iterable[Claim], assumed: Assumed
) -> Observation:
    return Observation(
        now=assumed.now,
        region=next(iter(regions), ""),
        service=service,
        regions=regions,
        engine_images=assumed.engine_images,
        claims=tuple(claims),
    )


def _judgement(region: str, unhealthy: Iterable[str]) -> Judgement:
    if region in unhealthy:
        message = f"{region} is taken to be seen failing by a majority."
        return Judgement(Verdict.UNHEALTHY, Reason.NO_ENGINE_ANSWERS, message)
    return Judgement(Verdict.HEALTHY, Reason.ANSWERING, f"{region} is taken to be seen answering.")


def _region(manifest: Manifest) -> Region:
    name = manifest["metadata"]["name"]
    try:
        return Region(name=name, spec=RegionSpec.parse(manifest.get("spec")))
    except ValidationError as error:
        raise ConfigError(f"Region {name} cannot be read: {describe(error)}") from error


def _complete(manifest: Manifest, place: int) -> Manifest:
    """With what an API server adds; the earlier in the files, the older."""
    meta = {"namespace": "default", **manifest["metadata"]}
    meta |= {"uid": "", "generation": 1, "creationTimestamp": f"{place:06}"}
    return {**manifest, "metadata": meta, "spec": manifest.get("spec") or {}}


def _key(manifest: Manifest) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def _model(manifest: Manifest) -> str:
    model = manifest["spec"].get("model")
    return str(model.get("name", "")) if isinstance(model, dict) else ""


def read_documents(files: Iterable[str]) -> list[Manifest]:
    """Every document of these YAML files (`-`: standard input). Raises ConfigError."""
    documents = []
    for file in files:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text()
            parsed = list(yaml.safe_load_all(text))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}.") from error
        for each in parsed:
            if each is None:
                continue
            if not (isinstance(each, dict) and "kind" in each and "name" in (each.get("metadata") or {})):
                raise ConfigError(f"{file} holds a document that is no Kubernetes object with a kind and a name.")
            documents.append(each)
    return documents


def text(planned: Planned, now: datetime, region: str | None = None) -> list[str]:
    """A table: what each region is to run and route, and why."""
    first = next(iter(planned.plans.values()))
    traffic = {each.region: each for each in first.traffic}
    rows = []
    for name, plan in planned.plans.items():
        share = traffic.get(name)
        told = [str(share.state), f"{share.percent}%", str(share.weight)] if share else ["-", "-", "-"]
        if region in (None, name):
            rows.append([name, *told, engines(plan.replicas, plan.warm)])
    lines = paragraph(f"{planned.service}  revision {first.revision}, image {first.image}")
    lines += table(["REGION", "STATE", "SHARE", "WEIGHT", "ENGINES"], rows, indent="  ")
    lines += [line for each in first.traffic for line in paragraph(decision_sentence(now, each), indent="  ")]
    if first.hold_rollout:
        lines.append("  Engines are not replaced while a region is missing.")
    if planned.missing:
        lines.append(f"  {planned.missing} of the drained regions' engines find no room elsewhere: raise replicas.max.")
    return lines


@click.command("plan")
@click.option("-f", "--filename", "files", multiple=True, required=True, help="Services and Regions; - reads stdin.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="What to print.")
@click.option("--region", help="Only the plan of this region.")
@click.option("--unhealthy", multiple=True, metavar="REGION", help="As if a majority saw it fail; repeat.")
@click.option("--drain", multiple=True, metavar="REGION", help="As if somebody had asked to drain it; repeat.")
@click.option("--engine-image", "images", multiple=True, metavar="TYPE=IMAGE", help="Default image of an engine type.")
def plan(
    files: tuple[str, ...],
    output: str,
    region: str | None,
    unhealthy: tuple[str, ...],
    drain: tuple[str, ...],
    images: tuple[str, ...],
) -> None:
    """Print what the leader would plan for the services in these files; exit code 1 if one is refused."""
    assumed = Assumed(datetime.now(UTC), _images(images), unhealthy, drain)
    try:
        found = plan_files(read_documents(files), assumed)
    except HoldfastError as error:
        raise click.ClickException(str(error)) from error
    if not found:
        raise click.ClickException("The files hold no LLMService.")
    accepted = [each for each in found if not each.refused]
    if region and accepted and region not in accepted[0].plans:
        raise click.ClickException(
            f"There is no serving region {region}; the files have: {', '.join(accepted[0].plans)}."
        )
    if output == "table":
        for at, each in enumerate(accepted):
            click.echo(("\n" if at else "") + "\n".join(text(each, assumed.now, region)))
    else:
        click.echo(_dump([_document(*pair) for each in accepted for pair in _pairs(each, region)], output), nl=False)
    for each in found:
        if each.refused:
            click.echo(f"{each.service} is refused, {each.refused}", err=True)
    if len(accepted) < len(found):
        raise SystemExit(1)


def _images(pairs: tuple[str, ...]) -> dict[str, str]:
    try:
        return parse_engine_images(pairs)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _pairs(planned: Planned, region: str | None) -> list[tuple[str, RegionPlanSpec]]:
    return [(planned.service, spec) for name, spec in planned.plans.items() if region in (None, name)]


def _document(service: str, spec: RegionPlanSpec) -> Manifest:
    namespace, _, name = service.partition("/")
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": "RegionPlan", "metadata": meta, "spec": spec.wire()}


def _dump(documents: list[Manifest], form: str) -> str:
    if form == "json":
        return json.dumps(documents, indent=2, ensure_ascii=False) + "\n"
    return str(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=110))
