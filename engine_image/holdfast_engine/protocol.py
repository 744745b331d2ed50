"""Requests as the OpenAI API defines them, with vLLM's extensions `ignore_eos` and `return_token_ids`. Pure.

Types are checked strictly ("5" is no number). What would change the answer and is not supported is refused;
fields that change nothing (user, metadata, unknown ones) are ignored.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from holdfast_engine.admission import Priority
from holdfast_engine.errors import InvalidRequestError
from holdfast_engine.port import Sampling

COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for /v1/completions; a chat may fill the context."""
MAX_STOPS = 16
MAX_LOGPROBS = 20
PRIORITY_HEADER = "x-holdfast-priority"
"""high, normal or low; it goes before the body's field `priority`, so that a gateway can decide."""
TIMEOUT_HEADER = "x-holdfast-timeout"
"""Seconds after which a request that has not been started is of no more use."""
LONGEST_TIMEOUT = 86400

_Text = Annotated[str, StringConstraints(min_length=1)]


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair") from error
    return text


class StreamOptions(BaseModel):
    include_usage: bool = False


class GenerationRequest(BaseModel):
    """What completions and chats have in common."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    UNSUPPORTED: ClassVar[tuple[str, ...]] = (
        *("best_of", "echo", "logit_bias", "suffix", "tools", "functions"),
        *("frequency_penalty", "presence_penalty", "response_format", "audio", "prediction"),
    )
    HARMLESS: ClassVar[dict[str, Any]] = {"best_of": 1, "response_format": {"type": "text"}}

    SAMPLED: ClassVar[tuple[str, ...]] = ("temperature", "top_p", "seed")

    model: str
    max_tokens: int | None = Field(None, gt=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: _Text | list[_Text] | None = None
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    return_token_ids: bool = False
    priority: Priority | None = None

    @field_validator("priority", mode="before")
    @classmethod
    def _known_priority(cls, priority: object) -> Priority | None:
        return None if priority is None else named_priority(priority)

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if isinstance(stop, list) and len(stop) > MAX_STOPS:
            raise ValueError(f"holds more than {MAX_STOPS} strings")
        return stop

    def model_post_init(self, _: Any, /) -> None:
        for name in self.UNSUPPORTED:
            value = (self.model_extra or {}).get(name)
            if value and value != self.HARMLESS.get(name):
                raise InvalidRequestError(f"{name} is not supported by this engine.", param=name)

    @property
    def stops(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def token_limit(self) -> int | None:
        """Tokens to generate at most; None = what the context leaves."""
        return self.max_tokens

    @property
    def told_logprobs(self) -> int | None:
        """How many alternatives' log probabilities are told beside the token's own; None = not even that."""
        raise NotImplementedError

    @property
    def chosen(self) -> frozenset[str]:
        """The fields of `sampling` that the request names."""
        return frozenset(name for name in self.SAMPLED if getattr(self, name) is not None)

    def sampling(self, random_seed: int) -> Sampling:
        """How to generate; `random_seed` is for requests that name none."""
        return Sampling(
            max_tokens=self.token_limit,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=(random_seed if self.seed is None else self.seed) % 2**63,
            ignore_eos=self.ignore_eos,
            logprobs=self.told_logprobs,
        )


class CompletionRequest(GenerationRequest):
    prompt: str | list[int]
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, prompt: str | list[int]) -> str | list[int]:
        if not prompt:
            raise ValueError("must not be empty")
        return _encodable(prompt) if isinstance(prompt, str) else prompt

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens or COMPLETION_MAX_TOKENS

    @property
    def told_logprobs(self) -> int | None:
        return self.logprobs


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    role: _Text
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatRequest(GenerationRequest):
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, gt=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    @field_validator("messages")
    @classmethod
    def _texts(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        for message in messages:
            _encodable(message.role + message.text)
        if not any(message.text for message in messages):
            raise ValueError("hold no text")
        return messages

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @model_validator(mode="after")
    def _alternatives_of_something(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequestError("top_logprobs needs logprobs to be true.", param="top_logprobs")
        return self

    @property
    def told_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def plain_messages(self) -> list[dict[str, str]]:
        return [{"role": message.role, "content": message.text} for message in self.messages]


def named_priority(value: object) -> Priority:
    """The class of that name; raises ValueError."""
    if isinstance(value, str) and value.lower() in list(Priority):
        return Priority(value.lower())
    raise ValueError(f"must be one of {', '.join(Priority)}")


def given_priority(header: str | None) -> Priority | None:
    """The class that a header names; raises InvalidRequestError."""
    try:
        return None if header is None else named_priority(header.strip())
    except ValueError as error:
        raise InvalidRequestError(f"{PRIORITY_HEADER} {error}.", param=PRIORITY_HEADER) from error


def given_timeout(header: str | None) -> float | None:
    """Seconds that a header names; raises InvalidRequestError."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < LONGEST_TIMEOUT:
        raise InvalidRequestError(
            f"{TIMEOUT_HEADER} must be a number of seconds, more than 0 and less than {LONGEST_TIMEOUT}.",
            param=TIMEOUT_HEADER,
        )
    return seconds


Request = TypeVar("Request", bound=GenerationRequest)


def parse(kind: type[Request], body: bytes) -> Request:
    """The request in `body`; raises InvalidRequestError naming the first field at fault."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise InvalidRequestError("The body must be a JSON object.", code="invalid_json")
    return validated(kind, fields)


Model = TypeVar("Model", bound=BaseModel)


def validated(kind: type[Model], fields: dict[str, Any]) -> Model:
    """`fields` as `kind` has them; raises InvalidRequestError naming the first field at fault."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][:1]) or None
        raise InvalidRequestError(f"{param}: {first['msg']}", param=param) from error
