"""Why a stream's upstream is given up."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Label of the metric `holdfast_relay_resumes_total`."""

    RESET = "reset"
    """The connection broke."""
    ENDED = "ended"
    """The stream ended without a finish reason."""
    STALLED = "stalled"
    """No token came for too long."""
    ERROR = "error"
    """The engine said so, in the stream or by its status."""
    MALFORMED = "malformed"
    """What came is not what an engine sends."""


class UpstreamFailure(Exception):
    """This upstream will not complete the stream; another one may."""

    def __init__(self, reason: Reason, message: str, *, refused: bool = False, gone: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.refused = refused
        """Whether the request itself was found wanting (a status of 400 to 499, but 429): others would say the same."""
        self.gone = gone
        """Whether the region runs the stream's revision no more."""
