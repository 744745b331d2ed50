"""Issuers of JSON Web Tokens: whose tokens count, and which claim names the tenant. Read from Secrets; pure."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from holdfast.api.names import ISSUER_LABEL
from holdfast.api.schema import Schema
from holdfast.mirror import KubernetesObject, identity
from holdfast_gateway.secrets import text_of

ISSUER_SELECTOR = ISSUER_LABEL
TOKEN = r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
"""What a JSON Web Token looks like (RFC 7519, signed, in compact form)."""

DEFAULT_CLAIM = "tenant"
PARTS = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}
"""Type of a public key → its numbers (RFC 7518, section 6; RFC 8037)."""


class Issuer(Schema):
    """One issuer."""

    secret: str
    """The Secret that tells of it, `namespace/name`."""
    issuer: str
    """The claim `iss` of its tokens."""
    audiences: tuple[str, ...]
    """A token must name one of them in its claim `aud`."""
    jwks: str
    """Its public keys, a JSON Web Key Set (RFC 7517)."""
    tenant_claim: str = DEFAULT_CLAIM
    """The claim that names the tenant; dots lead into nested claims."""


def read_issuer(secret: KubernetesObject) -> Issuer:
    """The issuer in a Secret. Raises ValueError."""
    issuer = text_of(secret, "issuer").strip()
    audiences = tuple(re.split(r"[\s,]+", text_of(secret, "audiences").strip()))
    if not issuer:
        raise ValueError("it has no entry issuer: the claim `iss` of the tokens")
    if not all(audiences):
        raise ValueError("it has no entry audiences: values of the claim `aud` that count, separated by commas")
    claim = text_of(secret, "tenant-claim").strip() or DEFAULT_CLAIM
    jwks = json.dumps(read_keys(text_of(secret, "jwks.json")), sort_keys=True)
    return Issuer(secret=identity(secret), issuer=issuer, audiences=audiences, jwks=jwks, tenant_claim=claim)


def read_keys(text: str) -> dict[str, Any]:
    """A JSON Web Key Set of public keys. Raises ValueError."""
    try:
        keys = json.loads(text)["keys"]
        if not isinstance(keys, list) or not keys:
            raise ValueError
        for key in keys:
            for part in PARTS[key["kty"]]:
                base64.b64decode(key[part] + "==", altchars=b"-_", validate=True)
            if "d" in key:
                raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            "its entry jwks.json must be a JSON Web Key Set with public keys of type RSA, EC or OKP only"
        ) from None
    return {"keys": keys}
