"""What kopf is given: coroutines only, and no more passes at the same time than the API server can take."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import kopf
import pytest

from holdfast import handlers
from holdfast.adapters.cluster import Cluster
from holdfast.config import Config
from holdfast.domain.observation import Capabilities


class NoCluster:
    """A connection that is never used."""

    def lister(self, *_: Any, **__: Any) -> None:
        return None


class Stopped(asyncio.Event):
    """As a daemon is told to stop."""

    def __bool__(self) -> bool:
        return self.is_set()


@pytest.fixture
def registry() -> Any:
    found = kopf.OperatorRegistry()
    config = Config(region="us-east")
    handlers.register(found, cast(Cluster, NoCluster()), config, cast(Capabilities, None))
    return found


def test_no_event_is_handled_in_a_thread(registry: Any) -> None:
    found = [*registry._indexing.get_all_handlers(), *registry._watching.get_all_handlers()]

    assert found
    assert all(asyncio.iscoroutinefunction(each.fn) for each in found)


async def test_passes_wait_for_their_turn(registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    [keep] = [each.fn for each in registry._spawning.get_all_handlers()]
    stopped, go_on = Stopped(), asyncio.Event()
    begun: list[str] = []

    async def one_pass(_reconciler: Any, _fleet: Any, _body: Any, key: tuple[str, str], _indexes: Any) -> float:
        begun.append(key[1])
        await go_on.wait()
        return 0.0

    monkeypatch.setattr(handlers, "_safe_pass", one_pass)
    names = {f"chat-{number}" for number in range(3 * handlers.AT_ONCE)}
    bodies = [kopf.Body({"metadata": {"namespace": "default", "name": name}}) for name in sorted(names)]
    daemons = [asyncio.create_task(keep(body=body, stopped=stopped)) for body in bodies]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert len(begun) == handlers.AT_ONCE
    stopped.set()
    go_on.set()
    await asyncio.gather(*daemons)
    assert set(begun) == names
