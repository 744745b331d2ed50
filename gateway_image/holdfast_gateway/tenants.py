"""Tenants: who may ask, which models and how much. Read from Secrets; pure. No message ever holds a part of a key."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import yaml
from pydantic import ConfigDict, Field

from holdfast.api.names import TENANT_LABEL
from holdfast.api.schema import Schema
from holdfast.mirror import KubernetesObject, identity, one_line

TENANT_SELECTOR = TENANT_LABEL
SETTINGS_KEY = "tenant.yaml"
KEY = re.compile(r"api-key(-.+)?")
"""Names of a Secret's entries that hold API keys."""

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
SHORTEST_KEY, LONGEST_KEY = 16, 1024
JWT = r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
"""What a JSON Web Token looks like (RFC 7519, a JWS in compact form): an API key must not."""


class PriorityClass(StrEnum):
    """Who goes first at a busy engine."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Settings(Schema):
    """A tenant's `tenant.yaml`; every field may be left out."""

    model_config = ConfigDict(extra="forbid")

    models: tuple[str, ...] | None = None
    """Values of the request's `model` field that it may use; left out: all."""
    requests_per_minute: int | None = Field(default=None, ge=1, le=6_000_000)
    """Left out: the gateway's default."""
    burst: int | None = Field(default=None, ge=1, le=6_000_000)
    """Requests that may come at once; left out: as many as in a minute."""
    priority: PriorityClass = PriorityClass.NORMAL


class Tenant(Schema):
    """One tenant."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: str
    keys: tuple[str, ...] = Field(default=(), repr=False)
    """API keys, all valid, sorted."""
    settings: Settings = Settings()
    since: str = ""
    """When its Secret was made, RFC 3339."""


@dataclass(frozen=True)
class ReadTenants:
    """The tenants of a complete list of Secrets."""

    tenants: Mapping[str, Tenant]
    """Secret (`namespace/name`) → its tenant, or the last good one if it cannot be read now."""
    problems: tuple[str, ...]
    """A sentence for each Secret that cannot be read."""


def read_tenants(secrets: Iterable[KubernetesObject], last_good: Mapping[str, Tenant]) -> ReadTenants:
    """Reads all tenants; one that is broken is reported and its last good version stays."""
    tenants: dict[str, Tenant] = {}
    problems = []
    for secret in secrets:
        name = identity(secret)
        try:
            tenants[name] = read_tenant(secret)
        except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
            kept = "its last good version stays" if name in last_good else "it is left out"
            problems.append(f"Secret {name} holds no usable tenant, {kept}: {one_line(error)}")
            if name in last_good:
                tenants[name] = last_good[name]
    return ReadTenants(tenants, tuple(problems))


def read_tenant(secret: KubernetesObject) -> Tenant:
    """The tenant in a Secret. Raises ValueError, TypeError, AttributeError or yaml.YAMLError."""
    name = secret["metadata"]["labels"][TENANT_LABEL]
    if not NAME.fullmatch(name):
        raise ValueError(f"its label {TENANT_LABEL} must name the tenant (letters, digits, '-', '_', '.')")
    data = secret.get("data") or {}
    keys = {read_key(entry, value) for entry, value in data.items() if KEY.fullmatch(entry)}
    if not keys and SETTINGS_KEY not in data:
        raise ValueError(f"it has neither an entry api-key nor {SETTINGS_KEY}")
    settings = yaml.safe_load(decode(SETTINGS_KEY, data.get(SETTINGS_KEY, ""))) or {}
    since = str(secret["metadata"].get("creationTimestamp") or "")
    return Tenant(name=name, keys=tuple(sorted(keys)), settings=Settings.parse(settings), since=since)


def read_key(entry: str, value: str) -> str:
    """One API key, without the line break that editors leave. Raises ValueError."""
    key = decode(entry, value).strip()
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise ValueError(f"its entry {entry} must have {SHORTEST_KEY} to {LONGEST_KEY} characters")
    if not all("!" <= character <= "~" for character in key):
        raise ValueError(f"its entry {entry} must consist of printable ASCII characters without spaces")
    if re.fullmatch(JWT, key):
        raise ValueError(f"its entry {entry} looks like a JSON Web Token, as which it would be taken")
    return key


def decode(entry: str, value: str) -> str:
    """The text of a Secret's entry. Raises ValueError, which does not hold the text."""
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, TypeError):
        raise ValueError(f"its entry {entry} is not text") from None


def one_tenant_per_name(secrets: Mapping[str, Tenant]) -> tuple[tuple[Tenant, ...], tuple[str, ...]]:
    """Tenants sorted by name, no two with the same key; and a sentence for what was refused.

    The elder Secret keeps a name or a key that a younger one claims as well: what worked goes on.
    """
    found: dict[str, tuple[str, Tenant]] = {}
    owners: dict[str, str] = {}
    problems = []
    for secret, tenant in sorted(secrets.items(), key=lambda item: (item[1].since, item[0])):
        elder, _ = found.setdefault(tenant.name, (secret, tenant))
        if elder != secret:
            problems.append(f"Secrets {elder} and {secret} are both about tenant {tenant.name!r}; the first counts")
            continue
        own = tuple(key for key in tenant.keys if owners.setdefault(key, tenant.name) == tenant.name)
        if own != tenant.keys:
            others = ", ".join(sorted({owners[key] for key in tenant.keys} - {tenant.name}))
            problems.append(f"Secret {secret} has an API key of tenant {others}, whose it stays")
        found[tenant.name] = (secret, tenant.model_copy(update={"keys": own}))
    return tuple(tenant for _, (_, tenant) in sorted(found.items())), tuple(problems)


def allowed(tenants: Sequence[Tenant], model: str) -> tuple[str, ...]:
    """Names of the tenants that may use a model."""
    return tuple(each.name for each in tenants if may_use(each, model))


def may_use(tenant: Tenant, model: str) -> bool:
    """Whether a tenant may use a model."""
    return tenant.settings.models is None or model in tenant.settings.models
