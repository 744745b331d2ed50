"""Reads streams as a client does, and keeps all that it can tell apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.integration.gateway.bed import Bed

DEADLINE = 120.0
TOKENS = 50
CHAT = {"messages": [{"role": "user", "content": "Once upon a time"}]}
COMPLETION = {"prompt": "Once upon a time"}


@dataclass
class Streamed:
    """What a client made of a stream."""

    headers: httpx.Headers
    raw: str = ""
    chunks: list[Any] = field(default_factory=list)
    ended: bool = False
    """Whether [DONE] came."""

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", [])]
        return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)

    def seen(self) -> Any:
        """All that a client can tell apart, without the names and times that are each answer's own."""
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", [])]
        return {
            "text": self.text,
            "ids": [token for choice in choices for token in choice.get("token_ids", [])],
            "roles": [choice["delta"]["role"] for choice in choices if "role" in choice.get("delta", {})],
            "reasons": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
            "usage": [chunk["usage"] for chunk in self.chunks if chunk.get("usage")],
            "kinds": {chunk.get("object") for chunk in self.chunks},
            "frames": len({(chunk.get("id"), chunk.get("created"), chunk.get("model")) for chunk in self.chunks}),
            "ended": self.ended,
        }


def ask(
    url: str, fault: Callable[[], None] | None = None, after: int = 12, content: Any = COMPLETION, **fields: Any
) -> Streamed:
    """Reads a stream to its end; after so many chunks, injects the fault and reads on."""
    asked = {"model": "llama", "temperature": 0, "max_tokens": TOKENS, "stream": True, "ignore_eos": True}
    asked |= {"stream_options": {"include_usage": True}, **content, **fields}
    path = "chat/completions" if "messages" in asked else "completions"
    with httpx.stream("POST", f"{url}/v1/{path}", json=asked, timeout=DEADLINE) as response:
        assert response.status_code == 200, response.read()
        got = Streamed(response.headers)
        for line in response.iter_lines():
            got.raw += line + "\n"
            if not line.startswith("data: "):
                continue
            assert not got.ended
            if line == "data: [DONE]":
                got.ended = True
                continue
            got.chunks.append(json.loads(line[6:]))
            if fault is not None and len(got.chunks) == after:
                fault()
    return got


def metric(bed: Bed, gateway: str, name: str) -> float:
    """A metric of a gateway's relay."""
    text = httpx.get(f"http://{bed.gateways[gateway].options.listen}:9906/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))
