"""Where the relay asks: the outbound port of its own Envoy, which knows the regions, their health and their TLS.

The first attempt names the service alone, and Envoy chooses a region and retries before the first byte as for any
request. Later ones name the region as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType

import aiohttp

from holdfast.api.names import REVISION_HEADER, SERVICE_HEADER
from holdfast_gateway.relay.failure import Reason, UpstreamFailure
from holdfast_gateway.render.values import (
    GONE_HEADER,
    MODEL_HEADER,
    PEER_HEADER,
    RECORD_HEADER,
    REGION_HEADER,
    peer_cluster,
)

BUFFER_BYTES = 32 * 1024
"""Read ahead of a client that is slow; beyond twice of that, the engine's side is not read."""
MAX_BODY_BYTES = 4 * 1024 * 1024
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length")
)
_OWN = frozenset(("host", "accept-encoding", "expect", SERVICE_HEADER, PEER_HEADER, RECORD_HEADER, REVISION_HEADER))
LOOK_UP_SECONDS = 5.0
END_SECONDS = 1.0
NO_REVISION = "the region does not run the stream's revision"


@dataclass(frozen=True)
class Place:
    """Who is asked; region None: whichever Envoy chooses."""

    service: str
    region: str | None = None
    revision: str | None = None
    """The only revision that may answer; None: as any request."""

    @property
    def headers(self) -> dict[str, str]:
        """What tells Envoy so."""
        named = {} if self.region is None else {PEER_HEADER: peer_cluster(self.region)}
        pinned = {} if self.revision is None else {REVISION_HEADER: self.revision}
        return {SERVICE_HEADER: self.service, "accept-encoding": "identity", **named, **pinned}


class Answer:
    """An upstream's answer: its head has come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.region = response.headers.get(REGION_HEADER)
        self.revision = response.headers.get(REVISION_HEADER)
        """None where the engine's Pod does not name it."""
        self.gone = GONE_HEADER in response.headers
        """Whether the region has no engine of the revision that was asked for."""
        self.stands_in = MODEL_HEADER in response.headers
        """Whether another model answers than the one that was asked for."""
        self.headers = [
            (name.lower(), value) for name, value in response.headers.items() if name.lower() not in HOP_BY_HOP
        ]
        self.is_stream = response.status == 200 and response.content_type == "text/event-stream"

    async def read(self) -> bytes:
        """What came; empty at the end. Raises UpstreamFailure when the connection breaks."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailure(Reason.RESET, f"the connection broke: {error}") from error

    async def drain(self) -> None:
        """Reads to the end that must be near, so that the engine does not see its client leave."""
        with contextlib.suppress(UpstreamFailure, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                while await self.read():
                    pass

    async def whole(self) -> bytes:
        """A body that is no stream. Raises UpstreamFailure."""
        body = bytearray()
        while data := await self.read():
            body += data
            if len(body) > MAX_BODY_BYTES:
                raise UpstreamFailure(Reason.MALFORMED, f"the answer is no stream and exceeds {MAX_BODY_BYTES} bytes")
        return bytes(body)


class Upstream:
    """The outbound port at `url`; use it as a context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Upstream:
        self._session = aiohttp.ClientSession(
            self._url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=2),
            auto_decompress=False,
            read_bufsize=BUFFER_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @contextlib.asynccontextmanager
    async def post(self, path: str, body: bytes, headers: Mapping[str, str], place: Place) -> AsyncIterator[Answer]:
        """Asks. Raises UpstreamFailure when there is no answer."""
        kept = {name: value for name, value in headers.items() if name not in HOP_BY_HOP and name not in _OWN}
        try:
            response = await self._session.post(path, data=body, headers=kept | place.headers)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UpstreamFailure(Reason.RESET, f"no answer: {error}") from error
        try:
            yield Answer(response)
        finally:
            response.close()

    async def context_length(self, place: Place) -> int:
        """The most tokens, prompt and answer together, that a region's engines take. Raises UpstreamFailure."""
        timeout = aiohttp.ClientTimeout(total=LOOK_UP_SECONDS)
        try:
            async with self._session.get("/v1/models", headers=place.headers, timeout=timeout) as response:
                if GONE_HEADER in response.headers:
                    raise UpstreamFailure(Reason.ERROR, NO_REVISION, gone=True)
                return int(json.loads(await response.read())["data"][0]["max_model_len"])
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UpstreamFailure(Reason.RESET, f"the context length is not told: {error}") from error
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise UpstreamFailure(Reason.ERROR, "the engine does not tell its context length") from error
