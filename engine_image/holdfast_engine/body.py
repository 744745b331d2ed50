"""Reading the bodies of requests, up to a limit."""

from __future__ import annotations

from starlette.requests import Request

from holdfast_engine.errors import BodyTooLargeError

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_DROPPED_BYTES = 8 * MAX_BODY_BYTES


async def read_body(request: Request) -> bytes:
    """The request's body; raises BodyTooLargeError when it is larger than MAX_BODY_BYTES.

    Reads and drops what is somewhat too large: many clients do not look at an answer before they have sent
    their whole request.
    """
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            body += chunk
        elif size > MAX_DROPPED_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise BodyTooLargeError(f"The body is larger than {MAX_BODY_BYTES} bytes.")
    return bytes(body)
