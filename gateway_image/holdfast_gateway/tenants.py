"""Tenants: who may ask, which models and how much. Read from Secrets; pure. No message ever holds a part of a key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import yaml
from pydantic import ConfigDict, Field

from holdfast.api.names import TENANT_LABEL
from holdfast.api.schema import Schema
from holdfast.mirror import KubernetesObject
from holdfast_gateway.issuers import TOKEN
from holdfast_gateway.secrets import text_of

TENANT_SELECTOR = TENANT_LABEL
SETTINGS_KEY = "tenant.yaml"
KEY = re.compile(r"api-key(-.+)?")
"""Names of a Secret's entries that hold API keys."""

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
SHORTEST_KEY, LONGEST_KEY = 16, 1024


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
    tokens_per_minute: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Of prompts and answers together; left out: the gateway's default."""
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
class Allowance:
    """How much a tenant may ask for; 0 for no limit."""

    requests_per_minute: int
    burst: int
    """Requests at once."""
    tokens_per_minute: int


def unenforced(tenants: Sequence[Tenant], tokens_are_counted: bool) -> tuple[str, ...]:
    """A sentence for each limit that nobody counts for."""
    if tokens_are_counted:
        return ()
    named = [each.name for each in tenants if each.settings.tokens_per_minute]
    return tuple(f"tokensPerMinute of tenant {name} needs --limits and --ledger: it has no limit" for name in named)


def read_tenant(secret: KubernetesObject) -> Tenant:
    """The tenant in a Secret. Raises one of `secrets.UNUSABLE`."""
    name = secret["metadata"]["labels"][TENANT_LABEL]
    if not NAME.fullmatch(name):
        raise ValueError(f"its label {TENANT_LABEL} must name the tenant (letters, digits, '-', '_', '.')")
    data = secret.get("data") or {}
    keys = {read_key(entry, text_of(secret, entry)) for entry in data if KEY.fullmatch(entry)}
    if not keys and SETTINGS_KEY not in data:
        raise ValueError(f"it has neither an entry api-key nor {SETTINGS_KEY}")
    settings = yaml.safe_load(text_of(secret, SETTINGS_KEY)) or {}
    since = str(secret["metadata"].get("creationTimestamp") or "")
    return Tenant(name=name, keys=tuple(sorted(keys)), settings=Settings.parse(settings), since=since)


def read_key(entry: str, text: str) -> str:
    """One API key, without the line break that editors leave. Raises ValueError."""
    key = text.strip()
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise ValueError(f"its entry {entry} must have {SHORTEST_KEY} to {LONGEST_KEY} characters")
    if not all("!" <= character <= "~" for character in key):
        raise ValueError(f"its entry {entry} must consist of printable ASCII characters without spaces")
    if re.fullmatch(TOKEN, key):
        raise ValueError(f"its entry {entry} looks like a JSON Web Token, as which it would be taken")
    return key


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
