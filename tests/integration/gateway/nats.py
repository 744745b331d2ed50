"""A real NATS server with JetStream, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import nats as client
from nats.js.api import StreamConfig
from tests.integration.gateway.bed import free_port, wait_for
from tests.integration.gateway.processes import Server

STREAM, SUBJECT = "usage", "holdfast.usage"


class Nats:
    """One server and its stream of records."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        command = [program, "--addr", "127.0.0.1", "--port", str(self.port), "--jetstream", "--store_dir", str(folder)]
        self.server = Server(command, folder / "nats.log")

    @property
    def sink(self) -> str:
        """Its address for a ledger."""
        return f"nats://127.0.0.1:{self.port}/{STREAM}?subject={SUBJECT}"

    def start(self) -> None:
        """Starts it, or starts it again, and waits until it answers."""
        self.server.start()
        wait_for(self._answers, "NATS answers")

    def make_stream(self) -> None:
        """Makes the stream."""
        asyncio.run(self._with(lambda stream: stream.add_stream(StreamConfig(name=STREAM, subjects=[SUBJECT]))))

    def kept(self) -> list[Any]:
        """Every record in the stream, in turn."""

        async def read(stream: Any) -> list[Any]:
            count = (await stream.stream_info(STREAM)).state.messages
            reader = await stream.pull_subscribe(SUBJECT, stream=STREAM)
            found: list[Any] = []
            while len(found) < count:
                found += [json.loads(message.data) for message in await reader.fetch(min(100, count - len(found)))]
            return found

        return list(asyncio.run(self._with(read)))

    async def _with(self, work: Any) -> Any:
        connection = await client.connect(f"nats://127.0.0.1:{self.port}", allow_reconnect=False)
        try:
            return await work(connection.jetstream())
        finally:
            await connection.close()

    def _answers(self) -> bool:
        async def ask(stream: Any) -> bool:
            await stream.account_info()
            return True

        with contextlib.suppress(Exception):
            return bool(asyncio.run(self._with(ask)))
        return False
