"""Signed JSON Web Tokens for tests, and the public keys to check them with."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLAIMS = {"iss": "https://issuer.example", "aud": "holdfast", "sub": "somebody"}


class Signer:
    """An issuer with a key of its own (RS256)."""

    def __init__(self, kid: str = "k1") -> None:
        self._kid = kid
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self) -> str:
        """Its public key, a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": self._kid}
        return json.dumps({"keys": [key | {"n": encode_number(numbers.n), "e": encode_number(numbers.e)}]})

    def token(self, lifetime: float = 3600, **claims: Any) -> str:
        """A token that expires `lifetime` seconds from now; a claim that is None is left out."""
        named = CLAIMS | {"exp": int(time.time() + lifetime)} | claims
        payload = {name: value for name, value in named.items() if value is not None}
        head = encode(json.dumps({"alg": "RS256", "typ": "JWT", "kid": self._kid}).encode())
        signed = f"{head}.{encode(json.dumps(payload).encode())}"
        return f"{signed}.{encode(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode_number(value: int) -> str:
    """A number as JSON Web Keys hold it."""
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))
