"""The parts of a stream's chunks, and a completion's chunks as a chat's. Pure.

Token ids stand where vLLM puts them: `token_ids` in the choice, `prompt_token_ids` in the choice (completions) or
beside the choices (chats).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from holdfast_gateway.relay.events import Json
from holdfast_gateway.relay.failure import Reason, UpstreamFailure

IDS, PROMPT_IDS = "token_ids", "prompt_token_ids"
GIVEN_UP = ("abort", "error")
"""Finish reasons of an engine that did not finish."""
_PLAIN_DELTA = ("role", "content")


@dataclass(frozen=True)
class Chunk:
    """One chunk of a stream with a single choice, or with none (usage)."""

    content: Json
    choice: Json | None
    text: str
    ids: list[int]
    prompt_ids: list[int] | None
    reason: str | None
    """Why the answer is complete; None: it is not."""

    @property
    def beside_text(self) -> str | None:
        """The name of something that the engine made of its text, such as `reasoning_content`."""
        delta = (self.choice or {}).get("delta") or {}
        return next((name for name, value in delta.items() if value and name not in _PLAIN_DELTA), None)


def parse(data: str) -> Chunk:
    """A chunk out of an event's data; raises UpstreamFailure for an error, and for what is no chunk."""
    try:
        content = json.loads(data)
        if content.get("error"):
            raise UpstreamFailure(Reason.ERROR, f"the engine reported {_code(content['error'])}")
        choices = content["choices"]
        if not choices:
            return Chunk(content, None, "", [], None, None)
        choice = choices[0]
        text = choice["text"] if "text" in choice else choice["delta"].get("content")
        prompt_ids = choice.get(PROMPT_IDS) or content.get(PROMPT_IDS)
        chunk = Chunk(content, choice, text or "", choice.get(IDS) or [], prompt_ids, choice.get("finish_reason"))
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        raise UpstreamFailure(
            Reason.MALFORMED, f"an event of {len(data)} characters is no chunk of an answer"
        ) from error
    if not isinstance(chunk.text, str) or not isinstance(chunk.ids, list):
        raise UpstreamFailure(Reason.MALFORMED, "a chunk holds no text")
    if chunk.reason in GIVEN_UP:
        raise UpstreamFailure(Reason.ERROR, "the engine gave the request up")
    return chunk


def is_error(data: str) -> bool:
    """Whether an event's data is an engine's error."""
    if '"error"' not in data:
        return False
    try:
        return bool(json.loads(data).get("error"))
    except (ValueError, AttributeError, RecursionError):
        return False


def _code(error: Any) -> str:
    """What kind of error it is; its message may repeat the prompt, which is never logged."""
    said = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
    return f"{said:.100}" if isinstance(said, str) and said.isidentifier() else "an error"


def usage(data: str | None) -> tuple[int | None, int | None] | None:
    """Tokens of prompt and answer that an event's data tells, if it does."""
    if data is None or '"completion_tokens"' not in data:
        return None
    try:
        return counted(json.loads(data))
    except (ValueError, RecursionError):
        return None


def counted(content: Any) -> tuple[int | None, int | None] | None:
    """The same of a chunk."""
    told = content.get("usage") if isinstance(content, dict) else None
    if not isinstance(told, dict):
        return None
    prompt, generated = told.get("prompt_tokens"), told.get("completion_tokens")
    return prompt if isinstance(prompt, int) else None, generated if isinstance(generated, int) else None


@dataclass(frozen=True)
class Frame:
    """What every chunk of the client's answer repeats, as the first one had it."""

    fields: Json
    chat: bool

    @classmethod
    def of(cls, chunk: Chunk, chat: bool) -> Frame:
        """The frame of an answer that begins with this chunk."""
        left_out = ("choices", "usage", PROMPT_IDS)
        return cls({name: value for name, value in chunk.content.items() if name not in left_out}, chat)

    def chunk(self, choices: list[Json], usage: Json | None = None) -> Json:
        """A chunk of the client's answer."""
        return {**self.fields, "choices": choices, **({} if usage is None else {"usage": usage})}

    def ending(self, reason: str) -> Json:
        """A chunk that says nothing but why the answer is complete."""
        said: Json = {"delta": {}} if self.chat else {"text": ""}
        return self.chunk([{"index": 0, **said, "logprobs": None, "finish_reason": reason}])

    def continued(self, chunk: Chunk) -> Json:
        """A completion's chunk of a later engine as one of this answer."""
        usage = chunk.content.get("usage")
        if chunk.choice is None:
            return self.chunk([], usage)
        choice = {name: value for name, value in chunk.choice.items() if name != PROMPT_IDS}
        if self.chat:
            del choice["text"]
            delta = {"content": chunk.text} if chunk.text else {}
            choice = {"index": choice.pop("index", 0), "delta": delta, **choice}
        return self.chunk([choice], usage)


def with_text(content: Json, text: str) -> Json:
    """The chunk with another text."""
    choice = content["choices"][0]
    if "text" in choice:
        return {**content, "choices": [{**choice, "text": text}]}
    delta = {name: value for name, value in choice["delta"].items() if name != "content" or text}
    return {**content, "choices": [{**choice, "delta": {**delta, **({"content": text} if text else {})}}]}


def with_reason(content: Json, reason: str) -> Json:
    """The chunk as an answer's last."""
    return {**content, "choices": [{**content["choices"][0], "finish_reason": reason}]}


def without_ids(content: Json) -> Json:
    """The chunk as a client gets it that did not ask for token ids."""
    stripped = {name: value for name, value in content.items() if name != PROMPT_IDS}
    stripped["choices"] = [
        {name: value for name, value in choice.items() if name not in (IDS, PROMPT_IDS)}
        for choice in content["choices"]
    ]
    return stripped
