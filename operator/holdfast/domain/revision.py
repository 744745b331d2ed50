"""A revision: one immutable (model, engine, image, arguments) of a service, named by a digest of what it holds."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from holdfast.api.llmservice import LLMServiceSpec


def digest(value: Any) -> str:
    """Ten hexadecimal digits that differ when the JSON value does (40 bits of SHA-256)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def revision_of(spec: LLMServiceSpec, image: str) -> str:
    """The revision's name. Replicas, regions and traffic do not change it."""
    return digest({"model": spec.model.wire(), "engine": spec.engine.wire(), "image": image})
