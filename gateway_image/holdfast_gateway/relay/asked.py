"""What a client asked for, whether such a stream can be continued truthfully, and the requests that do it. Pure.

A stream is continued by asking for the completion of its prompt's token ids and of those generated so far. That is the
same generation only if nothing but these ids decides what follows; `OBSTACLES` are the fields of which that is not so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast_gateway.relay.events import Json

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for /v1/completions, and that of both engines."""
_Check = Callable[[Any], bool]


def _more_than_one(value: Any) -> bool:
    return value not in (None, 1)


def _structured(value: Any) -> bool:
    return bool(value) and value != {"type": "text"}


def _given(value: Any) -> bool:
    return value is not None and value is not False


OBSTACLES: Mapping[str, _Check] = {
    # Decided by text or structure before the seam, which the next engine does not know of.
    **dict.fromkeys(("response_format",), _structured),
    **dict.fromkeys(("tools", "functions", "structured_outputs", "logits_processors", "bad_words"), bool),
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), _given),
    **dict.fromkeys(("guided_decoding_backend", "guided_whitespace_pattern", "structural_tag"), _given),
    # Penalties count what was generated, which after the seam is a part of the prompt.
    **dict.fromkeys(("frequency_penalty", "presence_penalty"), bool),
    # Several answers at once, or more about each token than its id.
    **dict.fromkeys(("n", "best_of"), _more_than_one),
    **dict.fromkeys(("logprobs", "top_logprobs", "prompt_logprobs"), _given),
    **dict.fromkeys(("echo", "use_beam_search", "suffix", "prompt_embeds"), bool),
    # A prompt that is not its token ids, or not all of them.
    **dict.fromkeys(("truncate_prompt_tokens", "mm_processor_kwargs", "audio"), _given),
    # Stop strings are cut by the relay where the engine would leave them in.
    **dict.fromkeys(("include_stop_str_in_output",), bool),
}
CHAT_ONLY = (
    *("messages", "max_completion_tokens", "chat_template", "chat_template_kwargs", "add_generation_prompt"),
    *("continue_final_message", "add_special_tokens", "documents", "tool_choice", "parallel_tool_calls"),
    *("reasoning_effort", "include_reasoning", "modalities"),
)
"""Fields that made the prompt's ids out of messages, or mean nothing to a completion."""


@dataclass(frozen=True)
class Asked:
    """One streaming request."""

    body: bytes
    """As it came."""
    fields: Json
    chat: bool
    obstacle: str | None
    """Why the stream cannot be continued; None: it can, if the engine tells token ids."""
    limit: int | None
    """Tokens to generate at most; None: what the context leaves."""
    stops: tuple[str, ...]
    wants_ids: bool
    wants_usage: bool

    def first_body(self) -> bytes:
        """What the first engine is asked: for the token ids beside the text, if they are of use."""
        if self.obstacle is not None:
            return self.body
        return json.dumps({**self.fields, **self._tell()}).encode()

    def continuation_body(self, token_ids: list[int], generated: int, room: int) -> bytes:
        """What the next engine is asked: to go on from `token_ids`, of which `generated` were generated, for at most
        `room` tokens."""
        kept = {name: value for name, value in self.fields.items() if not self.chat or name not in CHAT_ONLY}
        if kept.get("min_tokens"):
            kept["min_tokens"] = max(0, kept["min_tokens"] - generated)
        return json.dumps({**kept, **self._tell(), "prompt": token_ids, "max_tokens": room}).encode()

    def _tell(self) -> Json:
        # vLLM else holds back as many characters as the longest stop string has, and no text would be that of its ids.
        return {"return_token_ids": True, **({"include_stop_str_in_output": True} if self.stops else {})}


def read(path: str, body: bytes) -> Asked:
    """The request in `body`. What cannot be read is left to the engine to refuse."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    chat = path == CHAT
    if not isinstance(fields, dict) or path not in (COMPLETIONS, CHAT):
        return Asked(body, {}, chat, "the relay does not know such requests", None, (), False, False)
    options = fields.get("stream_options")
    return Asked(
        body=body,
        fields=fields,
        chat=chat,
        obstacle=obstacle(fields, chat),
        limit=limit(fields, chat),
        stops=stops(fields.get("stop")),
        wants_ids=bool(fields.get("return_token_ids")),
        wants_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def obstacle(fields: Json, chat: bool) -> str | None:
    """Why such a stream cannot be continued truthfully."""
    for name, is_one in OBSTACLES.items():
        if is_one(fields.get(name)):
            return f"the request has {name}"
    if fields.get("min_tokens") and fields.get("stop"):
        return "the request has both min_tokens and stop"
    if chat:
        return None if _plain_messages(fields.get("messages")) else "a message holds more than text"
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(type(each) is int for each in prompt)):
        return "the request has several prompts"
    if "max_tokens" in fields and fields["max_tokens"] is None:
        return "the request leaves max_tokens to the engine"
    return None


def _plain_messages(messages: Any) -> bool:
    if not isinstance(messages, list):
        return False
    return all(isinstance(each, dict) and _plain(each.get("content")) for each in messages)


def _plain(content: Any) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return content is None or isinstance(content, str)


def limit(fields: Json, chat: bool) -> int | None:
    """Tokens to generate at most; None: what the context leaves."""
    value = fields.get("max_tokens")
    if chat:
        value = fields.get("max_completion_tokens") or value
    elif value is None:
        value = COMPLETION_MAX_TOKENS
    return value if isinstance(value, int) else None


def stops(value: Any) -> tuple[str, ...]:
    """The stop strings that are such."""
    listed = value if isinstance(value, list) else [value]
    return tuple(stop for stop in listed if isinstance(stop, str) and stop)
