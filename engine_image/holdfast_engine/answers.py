"""The JSON of answers: whole ones and stream chunks, for completions and for chats. Pure.

With `return_token_ids` an answer also holds the prompt's and the generated ids, where vLLM puts them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from holdfast_engine.port import TokenLogprobs
from holdfast_engine.reading import NewText

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


@dataclass
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
    def whole(self, new: NewText, used: Json) -> Json: ...

    @abstractmethod
    def chunk(self, new: NewText, *, first: bool) -> Json: ...

    @abstractmethod
    def usage_chunk(self, used: Json) -> Json: ...


class CompletionAnswer(Answer):
    KIND = "text_completion"

    def __init__(self, *envelope: Any) -> None:
        super().__init__(*envelope)
        self._offset = 0

    def whole(self, new: NewText, used: Json) -> Json:
        return {**self._envelope(self.KIND, [self._choice(new, True)]), "usage": used}

    def chunk(self, new: NewText, *, first: bool) -> Json:
        return self._envelope(self.KIND, [self._choice(new, first)])

    def usage_chunk(self, used: Json) -> Json:
        return {**self._envelope(self.KIND, []), "usage": used}

    def _choice(self, new: NewText, with_prompt: bool) -> Json:
        logprobs = None if new.logprobs is None else self._logprobs(new.logprobs)
        choice = {"index": 0, "text": new.text, "logprobs": logprobs, "finish_reason": new.reason}
        prompt = {"prompt_token_ids": self.prompt_ids} if with_prompt and self.prompt_ids is not None else {}
        return {**choice, **prompt, **self._ids(new.token_ids)}

    def _logprobs(self, tokens: list[TokenLogprobs]) -> Json:
        """Four lists of the same length; offsets are in characters from the answer's beginning."""
        offsets = []
        for each in tokens:
            offsets.append(self._offset)
            self._offset += len(each.token)
        return {
            "tokens": [each.token for each in tokens],
            "token_logprobs": [each.logprob for each in tokens],
            "top_logprobs": [dict(each.top) for each in tokens],
            "text_offset": offsets,
        }


class ChatAnswer(Answer):
    def whole(self, new: NewText, used: Json) -> Json:
        message = {"role": "assistant", "content": new.text}
        choice = {"index": 0, "message": message, "logprobs": _content(new), "finish_reason": new.reason}
        answer = self._envelope("chat.completion", [{**choice, **self._ids(new.token_ids)}])
        return {**answer, **self._prompt(), "usage": used}

    def chunk(self, new: NewText, *, first: bool) -> Json:
        role = {"role": "assistant"} if first else {}
        delta = {**role, "content": new.text} if new.text or first else {}
        choice = {"index": 0, "delta": delta, "logprobs": _content(new), "finish_reason": new.reason}
        chunk = self._envelope("chat.completion.chunk", [{**choice, **self._ids(new.token_ids)}])
        return {**chunk, **self._prompt()} if first else chunk

    def usage_chunk(self, used: Json) -> Json:
        return {**self._envelope("chat.completion.chunk", []), "usage": used}

    def _prompt(self) -> Json:
        return {} if self.prompt_ids is None else {"prompt_token_ids": self.prompt_ids}


def _content(new: NewText) -> Json | None:
    """A chat's log probabilities."""
    if new.logprobs is None:
        return None
    return {
        "content": [
            {
                **_token(each.token, each.logprob, each.utf8),
                "top_logprobs": [_token(token, logprob) for token, logprob in each.top],
            }
            for each in new.logprobs
        ]
    }


def _token(token: str, logprob: float, utf8: bytes | None = None) -> Json:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode() if utf8 is None else utf8)}
