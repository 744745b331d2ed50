"""The front door: who asks (API keys, tokens), as which class, and how much. HTTP filters of the client port.

What changes with the tenants is found through Envoy's extension discovery in files of its own: a changed file takes
effect for the next request and closes no connection. Keys are apart from limits, as a changed file of limits
fills every bucket again and a rotated key must not. Where a file is missing or refused, no request passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.api.names import PREFIX_HEADER, PRIORITY_HEADER, REVISION_HEADER, TENANT_HEADER
from holdfast_gateway.issuers import TOKEN, Issuer
from holdfast_gateway.options import Auth, Options
from holdfast_gateway.render import limits
from holdfast_gateway.render.matching import MATCHING, request_header, skip_if, with_matcher
from holdfast_gateway.render.values import MODEL_METADATA, Document, file_source, header, http_filter, typed
from holdfast_gateway.state import Snapshot
from holdfast_gateway.tenants import Allowance, PriorityClass, Tenant

KEYS = "ecds-keys.yaml"
TOKENS = "ecds-tokens.yaml"
TENANTS = "ecds-tenants.yaml"
KEY_HEADERS = ("authorization", "x-api-key", "api-key")
"""Where a key may stand; the first that there is counts, with or without `Bearer`."""

API_KEYS = "extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
TOKEN_CHECK = "extensions.filters.http.jwt_authn.v3.JwtAuthentication"
BEARER = f"Bearer {TOKEN}"
COMPOSITE = "extensions.filters.http.composite.v3"
SHORTEST_FILL = 0.05
"""Seconds: Envoy refuses to fill a bucket more often."""

OWN_HEADERS = (TENANT_HEADER, REVISION_HEADER, PREFIX_HEADER)
"""What only gateways may say."""
NOBODY = "nobody"
ALWAYS = {"default_value": {"numerator": 100}}


def filters(options: Options, directory: str) -> list[Document]:
    """The client port's filters before those that read the request's body. `directory` holds Envoy's files."""
    if options.auth is Auth.NONE:
        return [mutate_request("strip", remove=OWN_HEADERS)]
    return [
        mutate_request("strip", remove=OWN_HEADERS),
        read_priority(),
        discovered("tokens", directory, TOKENS, TOKEN_CHECK),
        discovered("keys", directory, KEYS, API_KEYS, MATCHING),
        discovered("tenants", directory, TENANTS, MATCHING),
        mutate_request("hide", remove=KEY_HEADERS),
    ]


def resources(snapshot: Snapshot, options: Options) -> dict[str, Document]:
    """File name → what the filters find there, limits before keys: who can enter must be known inside."""
    return {
        TENANTS: resource("tenants", by_tenant(snapshot.tenants, options)),
        TOKENS: resource("tokens", tokens(snapshot.issuers)),
        KEYS: resource("keys", keys(snapshot.tenants, tokens=bool(snapshot.issuers))),
    }


def discovered(name: str, directory: str, file: str, *messages: str) -> Document:
    """A filter whose configuration, one of these messages, is in a file of its own."""
    types = [typed(message)["@type"] for message in messages]
    return {"name": name, "config_discovery": {"config_source": file_source(f"{directory}/{file}"), "type_urls": types}}


def resource(name: str, config: Document) -> Document:
    """What such a file holds."""
    return typed("config.core.v3.TypedExtensionConfig", name=name, typed_config=config)


def tokens(issuers: Sequence[Issuer]) -> Document:
    """JSON Web Tokens: one that is there must be good. A claim names the tenant."""
    providers = {
        each.secret: {
            "issuer": each.issuer,
            "audiences": list(each.audiences),
            "local_jwks": {"inline_string": each.jwks},
            "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
            "claim_to_headers": [{"header_name": TENANT_HEADER, "claim_name": each.tenant_claim}],
            "require_expiration": True,
            # The filter of keys must see that there is one; it is hidden from engines after that.
            "forward": True,
        }
        for each in issuers
    }
    names = [{"provider_name": name} for name in providers]
    any_of = names[0] if len(names) == 1 else {"requires_any": {"requirements": names}}
    shown = {"name": "authorization", "string_match": {"safe_regex": {"regex": BEARER}}}
    rules = [{"match": {"prefix": "/", "headers": [shown]}, "requires": any_of}] if names else []
    return typed(TOKEN_CHECK, providers=providers, rules=rules)


def keys(tenants: Sequence[Tenant], *, tokens: bool) -> Document:
    """API keys; with `tokens`, requests that show one have been judged already."""
    check = typed(
        API_KEYS,
        credentials=[{"key": key, "client": tenant.name} for tenant in tenants for key in tenant.keys],
        key_sources=[{"header": name} for name in KEY_HEADERS],
        forwarding={"header": TENANT_HEADER, "hide_credentials": True},
    )
    if not tokens:
        return check
    return skip_if("authorization", {"safe_regex": {"google_re2": {}, "regex": BEARER}}, "api-key", check)


def by_tenant(tenants: Sequence[Tenant], options: Options) -> Document:
    """Filters of each tenant, chosen by its name; nobody else passes."""
    chains = {f"tenant/{tenant.name}": {"typed_config": tenant_filters(tenant, options)} for tenant in tenants}
    chains[NOBODY] = {"typed_config": refuse()}
    composite = typed(f"{COMPOSITE}.Composite", named_filter_chains=chains)
    tree: Document = {"on_no_match": {"action": execute(NOBODY)}}
    if tenants:
        chosen = {tenant.name: {"action": execute(f"tenant/{tenant.name}")} for tenant in tenants}
        tree["matcher_tree"] = {"input": request_header(TENANT_HEADER), "exact_match_map": {"map": chosen}}
    return with_matcher("tenant", composite, tree)


def tenant_filters(tenant: Tenant, options: Options) -> list[Document]:
    """What happens to a tenant's requests: their class is set, and they are counted."""
    given = f"%DYNAMIC_METADATA({MODEL_METADATA}:{bounded_by(tenant.settings.priority)})%"
    may = allowance(tenant, options)
    filters = [mutate_request("class", add={PRIORITY_HEADER: given})]
    if may.requests_per_minute:
        filters.append(rate_limit(tenant.name, may.requests_per_minute, may.burst, shown=not options.limits))
    if options.limits and (may.requests_per_minute or may.tokens_per_minute):
        filters.append(limits.note(tenant.name, may))
    return filters


def allowance(tenant: Tenant, options: Options) -> Allowance:
    """A tenant's own limits, else the gateway's."""
    own = tenant.settings.requests_per_minute
    per_minute = own or options.requests_per_minute
    burst = tenant.settings.burst or (options.burst if own is None else 0)
    return Allowance(per_minute, burst or per_minute, tenant.settings.tokens_per_minute or options.tokens_per_minute)


def rate_limit(name: str, per_minute: int, burst: int, shown: bool = True) -> Document:
    """A bucket of `burst` tokens; each request takes one, and they come back evenly. `shown`: answers tell of it."""
    tokens = math.ceil(per_minute * SHORTEST_FILL / 60)
    # Rounded up to what Envoy can count; a limit is never exceeded.
    interval = math.ceil(60_000 * tokens / per_minute) / 1000
    return http_filter(
        "limit",
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix=f"tenant.{name}",
        token_bucket={"max_tokens": burst, "tokens_per_fill": tokens, "fill_interval": f"{interval:.3f}s"},
        filter_enabled=ALWAYS,
        filter_enforced=ALWAYS,
        enable_x_ratelimit_headers="DRAFT_VERSION_03" if shown else "OFF",
        rate_limited_as_resource_exhausted=True,  # to clients of gRPC
        response_headers_to_add=[header("retry-after", str(math.ceil(interval)))],
    )


def refuse() -> list[Document]:
    """Nobody passes; the note tells this refusal from others with the same status."""
    note = {"metadata_namespace": MODEL_METADATA, "value": {"problem": "tenant"}, "allow_overwrite": True}
    return [
        http_filter("note", "set_metadata.v3.Config", metadata=[note]),
        http_filter("refuse", "rbac.v3.RBAC", rules={"action": "ALLOW", "policies": {}}),
    ]


def read_priority() -> Document:
    """Notes for each class which one a request gets from a tenant of that class: the class that the client asks for,
    if it is not above the tenant's; otherwise, and for whatever is no class, the tenant's own."""
    order = list(PriorityClass)
    rules = []
    for number, bound in enumerate(order):
        note = {"metadata_namespace": MODEL_METADATA, "key": bounded_by(bound)}
        own = note | {"value": bound.value}
        may_ask = "|".join(each.value for each in order[number:])
        # Without a match the value is empty, and an empty value replaces nothing.
        asked = note | {"regex_value_rewrite": {"pattern": {"regex": f"^({may_ask})$|^.*$"}, "substitution": r"\1"}}
        rules += [
            {"header": PRIORITY_HEADER, "on_header_present": own, "on_header_missing": own},
            {"header": PRIORITY_HEADER, "on_header_present": asked},
        ]
    return http_filter("priority", "header_to_metadata.v3.Config", request_rules=rules)


def bounded_by(bound: PriorityClass) -> str:
    """Key of the note for tenants of that class."""
    return f"priority-{bound}"


def mutate_request(name: str, remove: Sequence[str] = (), add: dict[str, str] | None = None) -> Document:
    """Removes headers of a request, and sets others."""
    changes: list[Document] = [{"remove": key} for key in remove]
    changes += [{"append": header(key, value)} for key, value in (add or {}).items()]
    return http_filter(name, "header_mutation.v3.HeaderMutation", mutations={"request_mutations": changes})


def execute(chain: str) -> Document:
    """The action that runs one of the named chains."""
    return {"name": "execute", "typed_config": typed(f"{COMPOSITE}.ExecuteFilterAction", filter_chain_name=chain)}
