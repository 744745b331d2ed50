"""The error tree, and OpenAI's JSON form of it. Every error knows its HTTP status and OpenAI error code."""

from __future__ import annotations


class EngineError(Exception):
    """Something a client is told. `param` names the request's field at fault."""

    status = 500
    kind = "server_error"
    code: str | None = "engine_error"
    retry_after: int | None = None
    """Seconds, for the Retry-After header."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code

    def body(self) -> dict[str, object]:
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
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


class GenerationError(EngineError):
    """The generation loop refused a request that had been accepted; another engine would, too."""

    code = "generation_failed"


def refusal(status: int, code: str, message: str) -> EngineError:
    """The error for a request that the pipeline process refused."""
    return InvalidRequestError(message, code=code, param="prompt") if status < 500 else GenerationError(message)
