"""A stream of NATS JetStream: `nats://HOST:4222/STREAM?subject=SUBJECT`.

Every record is published with its id as `Nats-Msg-Id`, so that the stream drops what comes twice within its window, and
counts as kept when the stream has said so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import nats
from nats.aio.client import Client
from nats.errors import Error
from nats.js import JetStreamContext

from holdfast_gateway.ledger.record import Record
from holdfast_gateway.ledger.sinks.port import SinkUnavailable

SUBJECT = "holdfast.usage"
CONNECT_SECONDS = 3
ACK_SECONDS = 5.0
MESSAGE_ID = "Nats-Msg-Id"
HEADER_BYTES = 256
"""Of a message, beside its record."""


class NatsSink:
    """Publishes to one stream. Connects when it must, and anew after every failure."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._server = f"{parts.scheme}://{parts.netloc}"
        self._stream = parts.path.strip("/")
        self._subject = query.get("subject", [SUBJECT])[0]
        self._credentials = query.get("credentials", [None])[0]
        self._client: Client | None = None
        if not parts.hostname or not self._stream or "/" in self._stream:
            raise ValueError(f"{url} must name a host and a stream: nats://HOST:4222/STREAM")

    async def write(self, records: Sequence[Record]) -> list[Record]:
        """See `Sink`."""
        try:
            # Also here: left to itself the library would look for a server for ever.
            async with asyncio.timeout(CONNECT_SECONDS):
                client = await self._connected()
            most = client.max_payload - HEADER_BYTES
            refused = [record for record in records if len(record.line()) > most]
            kept = [record for record in records if record not in refused] if refused else records
            stream = client.jetstream()
            done = await asyncio.gather(*(self._publish(stream, each) for each in kept), return_exceptions=True)
            for failure in filter(None, done):
                raise failure
        except (Error, OSError, TimeoutError) as error:
            await self.close()
            what = str(error) or type(error).__name__
            raise SinkUnavailable(f"NATS stream {self._stream} at {host_of(self._server)}: {what}") from error
        return refused

    async def close(self) -> None:
        """See `Sink`."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Error, OSError, TimeoutError):
                await asyncio.wait_for(client.close(), CONNECT_SECONDS)

    async def _publish(self, stream: JetStreamContext, record: Record) -> None:
        await stream.publish(
            self._subject, record.line().rstrip(), timeout=ACK_SECONDS, stream=self._stream,
            headers={MESSAGE_ID: record.id},
        )  # fmt: skip

    async def _connected(self) -> Client:
        if self._client is None or not self._client.is_connected:
            await self.close()
            self._client = await nats.connect(
                self._server, name="holdfast-ledger", connect_timeout=CONNECT_SECONDS, allow_reconnect=False,
                max_reconnect_attempts=1, user_credentials=self._credentials, error_cb=ignored,
            )  # fmt: skip
        return self._client


async def ignored(_error: Exception) -> None:
    """The same is raised where it matters."""


def host_of(server: str) -> str:
    """A server's address without a password."""
    return server.rpartition("@")[2].rpartition("/")[2]
