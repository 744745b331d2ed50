"""What vLLM's OpenAI server is told and what it answers: arguments, requests, streams, errors, metrics. Pure.

Written for vLLM 0.11 and later (its `vllm/entrypoints/openai`): `return_token_ids` gives the prompt's ids with the
first chunk and the new ids with each; `include_stop_str_in_output` lets it end exactly at a stop string without holding
text back, since the shim cuts the string away; `priority`, lower = earlier, is refused unless the scheduler's policy is
"priority".
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

from holdfast_engine.errors import EngineError, InvalidRequestError, UnavailableError
from holdfast_engine.port import Accepted, Event, Output, Step, Task

PROBE_PRIORITY = -1
RESERVED = ("--host", "--port", "--uds", "--served-model-name", "--api-key", "--root-path")
"""Arguments that are the shim's own: it alone talks to the child."""
POLICY = "--scheduling-policy"
QUIET = ("--disable-uvicorn-access-log",)
"""The child's only client is the shim, which also looks at its metrics twice a second."""
_ENDS = {"stop": "stop", "length": "length"}
_CONTEXT = re.compile(
    r"maximum context length|max_tokens.* too large|longer than the maximum|max_tokens must be at least 1",
    re.IGNORECASE,
)
"""The last is what vLLM says of a prompt that leaves no room for a token: the shim never asks for less than one."""
_ABOUT_PROMPT = re.compile(r"out of vocabulary|out of range|prompt|token id", re.I)
_SIGNS = re.compile(
    r"^vllm:(?:kv_cache_usage_perc|iteration_tokens_total_count|prompt_tokens_total|generation_tokens_total)\{.*$",
    re.MULTILINE,
)
_CACHE_USAGE = re.compile(r"^vllm:kv_cache_usage_perc\{[^\n]*\} (\S+)$", re.MULTILINE)


def arguments(user: Sequence[str], served_name: str, port: int, model: str | None) -> list[str]:
    """The child's whole arguments; raises ValueError when the user's hold one that is the shim's own."""
    names = [_name(argument) for argument in user]
    for name in names:
        if name in RESERVED or name.startswith("--ssl-"):
            raise ValueError(f"{name} is set by the shim, in front of which clients are.")
    given = [*(["--model", model] if model is not None else []), *user]
    if POLICY not in names:
        given += [POLICY, "priority"]
    return [*given, *QUIET, "--served-model-name", served_name, "--host", "127.0.0.1", "--port", str(port)]


def knows_priorities(user: Sequence[str]) -> bool:
    """Whether the child takes priorities, started with these arguments of the user's."""
    for at, argument in enumerate(user):
        if _name(argument) == POLICY:
            value = argument.partition("=")[2] if "=" in argument else "".join(user[at + 1 : at + 2])
            return value == "priority"
    return True


def _name(argument: str) -> str:
    return argument.partition("=")[0].replace("_", "-") if argument.startswith("--") else ""


def request(task: Task, served_name: str, priorities: bool) -> tuple[str, dict[str, Any]]:
    """The path and the body that ask the child for `task`."""
    sampling = task.sampling
    body: dict[str, Any] = {"model": served_name, "stream": True, "return_token_ids": True}
    body |= {name: getattr(sampling, name) for name in sorted(task.chosen)}
    if sampling.max_tokens is not None:
        body["max_tokens"] = sampling.max_tokens
    if sampling.ignore_eos:
        body["ignore_eos"] = True
    if task.stops:
        body |= {"stop": list(task.stops), "include_stop_str_in_output": True}
    if task.probe and priorities:
        body["priority"] = PROBE_PRIORITY
    if task.messages is not None:
        return "/v1/chat/completions", {**body, "messages": task.messages}
    return "/v1/completions", {**body, "prompt": task.text if task.token_ids is None else task.token_ids}


class AnswerStream:
    """One task's answer, read from server-sent events that come in pieces of any size."""

    def __init__(self, id: int) -> None:
        self.ended = False
        """Whether the finish reason has come."""
        self._id = id
        self._begun = False
        self._prompt_ids: list[int] = []
        self._unread = b""

    def feed(self, data: bytes) -> list[Event]:
        """What the new bytes report; raises EngineError when they tell of one.

        Chunks that came together are reported as one. One without text does not join text before it: its tokens
        belong to a character that is not complete yet.
        """
        *events, self._unread = (self._unread + data).split(b"\n\n")
        outputs: list[Output] = []
        for event in events:
            if not event.startswith(b"data: ") or event == b"data: [DONE]":
                continue
            chunk = json.loads(event[6:])
            if "error" in chunk:
                code = chunk["error"].get("code")
                raise told_error(code if isinstance(code, int) else 500, event[6:])
            for choice in chunk["choices"]:
                self._prompt_ids = choice.get("prompt_token_ids") or chunk.get("prompt_token_ids") or self._prompt_ids
                self._add(choice, outputs)
        if not outputs:
            return []
        if self._begun:
            return [Step(outputs=outputs)]
        self._begun = True
        return [Accepted(self._id, self._prompt_ids), Step(outputs=outputs)]

    def _add(self, choice: dict[str, Any], outputs: list[Output]) -> None:
        text = choice["text"] if "text" in choice else choice["delta"].get("content")
        ids, reason = choice.get("token_ids") or [], choice.get("finish_reason")
        if reason is not None:
            self.ended = True
            if reason in ("abort", "error"):
                raise UnavailableError("The engine gave the request up.", code="failed")
            reason = _ENDS.get(reason, "stop")
        elif not text and not ids:
            return  # a chat's first chunk, which only names the role
        if outputs and text:
            before = outputs.pop()
            text, ids = (before.text or "") + text, before.token_ids + ids
        outputs.append(Output(self._id, ids, reason, text or ""))


def told_error(status: int, body: bytes) -> EngineError:
    """The error of an answer that is none. What is not the client's fault may succeed on another engine."""
    try:
        told = json.loads(body)
        told = told.get("error", told)
        message, param = str(told["message"]), told.get("param")
    except (ValueError, KeyError, AttributeError, TypeError):
        message, param = body.decode(errors="replace")[:500], None
    if not 400 <= status < 500 or status in (401, 403, 404, 429):
        return UnavailableError(f"The engine answered {status}: {message}", code="failed")
    if _CONTEXT.search(message):
        return InvalidRequestError(message, code="context_length_exceeded", param="prompt")
    if _ABOUT_PROMPT.search(message):
        return InvalidRequestError(message, code="invalid_prompt", param="prompt")
    return InvalidRequestError(message, param=param if isinstance(param, str) else None)


def max_model_len(models: str) -> int | None:
    """From the child's list of models."""
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
        return int(json.loads(models)["data"][0]["max_model_len"])
    return None


def signs(metrics: str) -> tuple[str, float | None]:
    """From the child's metrics: what changes with each of its engine's steps, and the KV cache's use (0 to 1)."""
    used = [float(value) for value in _CACHE_USAGE.findall(metrics)]
    return "\n".join(_SIGNS.findall(metrics)), max(used, default=None)
