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
from holdfast_engine.port import Accepted, Event, Output, Step, Task, TokenLogprobs

PROBE_PRIORITY = -1
RESERVED = ("--host", "--port", "--uds", "--served-model-name", "--api-key", "--root-path")
"""Arguments that are the shim's own: it alone talks to the child."""
POLICY = "--scheduling-policy"
SEATS = "--max-num-seqs"
DEFAULT_PLACES = 256
"""vLLM's own default for most GPUs (`vllm/engine/arg_utils.py`); it takes more on those with 70 GiB or more."""
TOP_LOGPROBS = 20
"""vLLM's own default of --max-logprobs."""
SLEEP = "--enable-sleep-mode"
SLEEP_ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1"}
"""Without it the child does not know the paths that put it to sleep."""
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
_PREFIX = {
    name: re.compile(rf"^vllm:prefix_cache_{name}_total\{{[^\n]*\}} (\S+)$", re.MULTILINE)
    for name in ("queries", "hits")
}
_CACHE_USAGE = re.compile(r"^vllm:kv_cache_usage_perc\{[^\n]*\} (\S+)$", re.MULTILINE)


def arguments(
    user: Sequence[str], served_name: str, port: int, model: str | None, more_places: int = 0, sleeps: bool = False
) -> list[str]:
    """The child's whole arguments, with so many places more than the shim fills by users' requests.

    Raises ValueError when the user's hold one that is the shim's own, or no number where one must be.
    """
    names = [_name(argument) for argument in user]
    for name in names:
        if name in RESERVED or name.startswith("--ssl-"):
            raise ValueError(f"{name} is set by the shim, in front of which clients are.")
    given = [*(["--model", model] if model is not None else []), *user]
    if POLICY not in names:
        given += [POLICY, "priority"]
    if sleeps and SLEEP not in names:
        given.append(SLEEP)
    given += [SEATS, str(_number(user, SEATS, DEFAULT_PLACES) + more_places)]  # the last one counts
    return [*given, *QUIET, "--served-model-name", served_name, "--host", "127.0.0.1", "--port", str(port)]


def places(user: Sequence[str]) -> int:
    """Users' requests that the child is to work on at once, all of its data-parallel ranks together."""
    return _number(user, SEATS, DEFAULT_PLACES) * _number(user, "--data-parallel-size", 1)


def top_logprobs(user: Sequence[str]) -> int:
    """Alternatives of a token that the child tells, at most."""
    told = _number(user, "--max-logprobs", TOP_LOGPROBS)
    return told if told >= 0 else TOP_LOGPROBS  # -1: as many as the vocabulary has


def knows_priorities(user: Sequence[str]) -> bool:
    """Whether the child takes priorities, started with these arguments of the user's."""
    return _value(user, POLICY) in (None, "priority")


def _number(user: Sequence[str], name: str, default: int) -> int:
    value = _value(user, name)
    try:
        return default if value is None else int(value)
    except ValueError as error:
        raise ValueError(f"{name} takes a whole number, not {value!r}.") from error


def _value(user: Sequence[str], name: str) -> str | None:
    """What the last of these arguments is set to, "" where nothing follows it; None when it is not there."""
    found = None
    for at, argument in enumerate(user):
        if _name(argument) == name:
            found = argument.partition("=")[2] if "=" in argument else "".join(user[at + 1 : at + 2])
    return found


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
        if sampling.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        return "/v1/chat/completions", {**body, "messages": task.messages}
    if sampling.logprobs is not None:
        body["logprobs"] = sampling.logprobs
    return "/v1/completions", {**body, "prompt": task.text if task.token_ids is None else task.token_ids}


class AnswerStream:
    """One task's answer, read from server-sent events that come in pieces of any size."""

    def __init__(self, id: int, alternatives: int = 0) -> None:
        self.ended = False
        """Whether the finish reason has come."""
        self._id = id
        self._alternatives = alternatives
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
        logprobs = _logprobs(choice.get("logprobs"), self._alternatives)
        if outputs and text:
            before = outputs.pop()
            text, ids = (before.text or "") + text, before.token_ids + ids
            logprobs = None if logprobs is None else [*(before.logprobs or ()), *logprobs]
        outputs.append(Output(self._id, ids, reason, text or "", logprobs))


def _logprobs(told: dict[str, Any] | None, alternatives: int) -> list[TokenLogprobs] | None:
    """From a choice's `logprobs`, in the form of completions or of chats. vLLM tells the chosen token beside the
    likeliest ones, wherever it ranks."""
    if told is None:
        return None
    if "content" in told:
        return [
            TokenLogprobs(
                each["token"],
                each["logprob"],
                _likeliest([(other["token"], other["logprob"]) for other in each["top_logprobs"]], alternatives),
                None if each.get("bytes") is None else bytes(each["bytes"]),
            )
            for each in told["content"] or ()
        ]
    return [
        TokenLogprobs(token, logprob, _likeliest(list((others or {}).items()), alternatives))
        for token, logprob, others in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)
    ]


def _likeliest(others: list[tuple[str, float]], count: int) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(others, key=lambda each: -each[1])[:count])


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


def prefix_cache(metrics: str) -> tuple[int, int] | None:
    """From the child's metrics: tokens looked up in its prefix cache, and those found; None where it does not tell."""
    queries, hits = (_PREFIX[name].findall(metrics) for name in ("queries", "hits"))
    return (int(sum(map(float, queries))), int(sum(map(float, hits)))) if queries else None


def signs(metrics: str) -> tuple[str, float | None]:
    """From the child's metrics: what changes with each of its engine's steps, and the KV cache's use (0 to 1)."""
    used = [float(value) for value in _CACHE_USAGE.findall(metrics)]
    return "\n".join(_SIGNS.findall(metrics)), max(used, default=None)
