"""The error tree, and OpenAI's JSON form of it. Every error knows its HTTP status and OpenAI error code."""

from __future__ import annotations


class EngineError(Exception):
    """Something a client is told. `param` names the request's field at fault."""

    status = 500
    kind = "server_error"
    code: str | None = "engine_error"
    retry_after: int | None = None
    """Seconds, for the Retry-After header."""
    leaving: bool = False
    """Whether this connection is of no more use."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code

    def body(self) -> dict[str, object]:
        message = str(self).encode(errors="replace").decode()  # it may quote half of a surrogate pair
        error = {"message": message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


class InvalidRequestError(EngineError):
    status = 400
    kind = "invalid_request_error"
    code: str | None = None


class UnknownModelError(InvalidRequestError):
    status = 404
    code = "model_not_found"


class UnknownPathError(InvalidRequestError):
    status = 404
    code = "not_found"


class WrongMethodError(InvalidRequestError):
    status = 405
    code = "method_not_allowed"


class BodyTooLargeError(InvalidRequestError):
    status = 413
    code = "request_too_large"


class UnavailableError(EngineError):
    """Not now, and not here: loading, draining, stalled or failed. Another engine may do it."""

    status = 503
    kind = "service_unavailable"
    code = "unavailable"
    retry_after = 1

    def __init__(self, message: str, *, code: str | None = None, leaving: bool = False) -> None:
        super().__init__(message, code=code)
        self.leaving = leaving


class QueueFullError(EngineError):
    """Too many requests wait. Another engine may have room."""

    status = 429
    kind = "rate_limit_error"
    code = "queue_full"

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"The engine is busy: {waiting} requests wait already. Try again in {retry_after} s.")
        self.retry_after = retry_after


class DeadlineError(EngineError):
    """The client's time was over before the request could be started. Not retriable: it would be late anywhere."""

    status = 408
    kind = "timeout_error"
    code = "deadline_exceeded"

    def __init__(self, timeout: float) -> None:
        super().__init__(f"The request was not started within its time-out of {timeout:g} s.")


class GenerationError(EngineError):
    """The generation loop refused a request that had been accepted; another engine would, too."""

    code = "generation_failed"


def refusal(status: int, code: str, message: str) -> EngineError:
    """The error for a request that the pipeline process refused."""
    return InvalidRequestError(message, code=code, param="prompt") if status < 500 else GenerationError(message)
