"""The JSON of answers: whole ones and stream chunks, for completions and for chats. Pure.

With `return_token_ids` an answer also holds the prompt's and the generated ids, where vLLM puts them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(content: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + _encode(content).encode() + b"\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    total = prompt_tokens + completion_tokens
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": total,
    }


@dataclass(frozen=True)
class Answer(ABC):
    """What all parts of one answer repeat. `created` in Unix seconds."""

    id: str
    model: str
    created: int
    prompt_ids: list[int] | None
    """Set when token ids are to be returned."""

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        created = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**created, "choices": choices}

    def _ids(self, token_ids: list[int]) -> Json:
        return {} if self.prompt_ids is None else {"token_ids": token_ids}

    @abstractmethod
    def whole(self, text: str, token_ids: list[int], reason: str, used: Json) -> Json: ...

    @abstractmethod
    def chunk(self, text: str, token_ids: list[int], reason: str | None, *, first: bool) -> Json: ...

    @abstractmethod
    def usage_chunk(self, used: Json) -> Json: ...


class CompletionAnswer(Answer):
    KIND = "text_completion"

    def whole(self, text: str, token_ids: list[int], reason: str, used: Json) -> Json:
        return {**self._envelope(self.KIND, [self._choice(text, token_ids, reason, True)]), "usage": used}

    def chunk(self, text: str, token_ids: list[int], reason: str | None, *, first: bool) -> Json:
        return self._envelope(self.KIND, [self._choice(text, token_ids, reason, first)])

    def usage_chunk(self, used: Json) -> Json:
        return {**self._envelope(self.KIND, []), "usage": used}

    def _choice(self, text: str, token_ids: list[int], reason: str | None, with_prompt: bool) -> Json:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        prompt = {"prompt_token_ids": self.prompt_ids} if with_prompt and self.prompt_ids is not None else {}
        return {**choice, **prompt, **self._ids(token_ids)}


class ChatAnswer(Answer):
    def whole(self, text: str, token_ids: list[int], reason: str, used: Json) -> Json:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        answer = self._envelope("chat.completion", [{**choice, **self._ids(token_ids)}])
        return {**answer, **self._prompt(), "usage": used}

    def chunk(self, text: str, token_ids: list[int], reason: str | None, *, first: bool) -> Json:
        role = {"role": "assistant"} if first else {}
        delta = {**role, "content": text} if text or first else {}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = self._envelope("chat.completion.chunk", [{**choice, **self._ids(token_ids)}])
        return {**chunk, **self._prompt()} if first else chunk

    def usage_chunk(self, used: Json) -> Json:
        return {**self._envelope("chat.completion.chunk", []), "usage": used}

    def _prompt(self) -> Json:
        return {} if self.prompt_ids is None else {"prompt_token_ids": self.prompt_ids}
