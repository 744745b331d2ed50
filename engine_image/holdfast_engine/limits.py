"""How much is taken on, and whether a request asks for more than that or than the engine can do. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast_engine.errors import InvalidRequestError
from holdfast_engine.port import Loaded, Sampling


@dataclass(frozen=True)
class Limits:
    """None = no limit. Times in seconds."""

    places: int | None = None
    """Requests that the engine works on at once."""
    waiting: int = 256
    """Requests beyond those."""
    ageing: float = 10.0
    """Waiting so much longer makes up for one class of priority."""
    prompt_tokens: int | None = None
    output_tokens: int | None = None

    def bounded(self, sampling: Sampling) -> Sampling:
        """The sampling with no more output than allowed; raises InvalidRequestError when it names more."""
        most, wanted = self.output_tokens, sampling.max_tokens
        if most is None:
            return sampling
        if wanted is not None and wanted > most:
            raise InvalidRequestError(
                f"At most {most} tokens are generated for a request, but {wanted} were requested.",
                code="output_too_long",
                param="max_tokens",
            )
        return replace(sampling, max_tokens=wanted or most)

    def refusal_of_prompt(self, tokens: int) -> InvalidRequestError | None:
        """What to say of a prompt of so many tokens if it is too long."""
        most = self.prompt_tokens
        if most is None or tokens <= most:
            return None
        message = f"A prompt may have at most {most} tokens; this one has {tokens}."
        return InvalidRequestError(message, code="prompt_too_long", param="prompt")


def check_ids(wanted: bool, loaded: Loaded) -> None:
    """Raises InvalidRequestError when token ids are asked for that the engine does not tell."""
    if wanted and not loaded.tells_ids:
        raise InvalidRequestError("This engine tells no token ids.", code="unsupported")


def check_logprobs(sampling: Sampling, loaded: Loaded) -> None:
    """Raises InvalidRequestError when the engine cannot tell the log probabilities that are asked for."""
    wanted, most = sampling.logprobs, loaded.top_logprobs
    if wanted is None:
        return
    if most is None:
        raise InvalidRequestError("This engine tells no log probabilities.", param="logprobs")
    if wanted > most:
        known = "the generated tokens' log probabilities alone" if most == 0 else f"at most {most} alternatives"
        raise InvalidRequestError(
            f"This engine tells {known}, but {wanted} alternatives were asked for.", param="logprobs"
        )
