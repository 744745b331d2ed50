"""A stream of NATS JetStream: `nats://HOST:4222/STREAM?subject=SUBJECT`.

Every record is published with its id as `Nats-Msg-Id`, so that the stream drops what comes twice within its window, and
counts as kept when the stream has said so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import nats
from nats.aio.client import Client
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from holdfast_gateway.ledger.record import Record
from holdfast_gateway.ledger.sinks.port import SinkUnavailable

SUBJECT = "holdfast.usage"
CONNECT_SECONDS = 3
ACK_SECONDS = 5.0
MESSAGE_ID = "Nats-Msg-Id"
BATCH = 500
"""Messages that are read at once."""
HEADER_BYTES = 256
"""Of a message, beside its record."""


class Stream:
    """One stream of one server. Connects when it must. Raises ValueError for an address that names none."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._server = f"{parts.scheme}://{parts.netloc}"
        self._stream = parts.path.strip("/")
        self._subject = query.get("subject", [SUBJECT])[0]
        self._credentials = query.get("credentials", [None])[0]
        self._client: Client | None = None
        if not parts.hostname or not self._stream or "/" in self._stream:
            raise ValueError(f"{host_of(url)} must name a host and a stream: nats://HOST:4222/STREAM")

    async def close(self) -> None:
        """Ends the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Error, OSError, TimeoutError):
                await asyncio.wait_for(client.close(), CONNECT_SECONDS)

    async def _connected(self) -> Client:
        if self._client is None or not self._client.is_connected:
            await self.close()
            self._client = await nats.connect(
                self._server, name="holdfast-ledger", connect_timeout=CONNECT_SECONDS, allow_reconnect=False,
                max_reconnect_attempts=1, user_credentials=self._credentials, error_cb=ignored,
            )  # fmt: skip
        return self._client

    def _unavailable(self, error: Exception) -> SinkUnavailable:
        what = str(error) or type(error).__name__
        return SinkUnavailable(f"NATS stream {self._stream} at {host_of(self._server)}: {what}")


class NatsSink(Stream):
    """Publishes to it, and connects anew after every failure."""

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
            raise self._unavailable(error) from error
        return refused

    async def _publish(self, stream: JetStreamContext, record: Record) -> None:
        await stream.publish(
            self._subject, record.line().rstrip(), timeout=ACK_SECONDS, stream=self._stream,
            headers={MESSAGE_ID: record.id},
        )  # fmt: skip


class NatsReader(Stream):
    """Reads it, from the message that came first at or after a moment."""

    def lines(self, since: datetime | None) -> Iterator[bytes]:
        """What its messages hold. Raises SinkUnavailable."""
        with asyncio.Runner() as runner:
            try:
                consumer, left = runner.run(self._consumer(since))
                while left:
                    messages = runner.run(consumer.fetch(min(BATCH, left), timeout=ACK_SECONDS))
                    left = messages[-1].metadata.num_pending
                    yield from (message.data for message in messages)
            except (Error, OSError, TimeoutError) as error:
                raise self._unavailable(error) from error
            finally:
                runner.run(self.close())

    async def _consumer(self, since: datetime | None) -> tuple[JetStreamContext.PullSubscription, int]:
        async with asyncio.timeout(CONNECT_SECONDS):
            stream = (await self._connected()).jetstream()
        begin: dict[str, Any] = {}
        if since is not None:
            begin = {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": since}
        # Nothing is acknowledged, so that nothing is taken from anybody.
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, **begin)
        consumer = await stream.pull_subscribe(self._subject, stream=self._stream, config=config)
        return consumer, (await consumer.consumer_info()).num_pending or 0


async def ignored(_error: Exception) -> None:
    """The same is raised where it matters."""


def host_of(server: str) -> str:
    """A server's address without a password."""
    return server.rpartition("@")[2].rpartition("/")[2]
