"""Streams in other surroundings: mutual TLS, a single region, vLLM without the shim, a relay that is lost early."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.gateway import certificates
from tests.integration.gateway.bed import Bed, status_of, wait_for
from tests.integration.gateway.conftest import MakeEngine
from tests.integration.gateway.processes import RELAY_PORT, Server, relay, vllm
from tests.integration.gateway.streaming import CHAT, COMPLETION, DEADLINE, ask, metric

from holdfast.api.route import EngineProtocol
from holdfast_gateway.options import Role

pytestmark = pytest.mark.integration
STREAM = "cluster.stream/default/chat"

KILL = pytest.param(Server.kill, id="killed")
FREEZE = pytest.param(Server.freeze, id="frozen")


def test_with_mutual_tls_the_relay_is_reached_and_reaches_regions(
    tmp_path: Path, real: MakeEngine, make_bed: Callable[..., Bed]
) -> None:
    certificates.authority(tmp_path / "tls")
    certificates.certificate(tmp_path / "tls")
    bed = make_bed(
        regions={"us": 1, "eu": 1}, make_engine=real, relay_flags=(), timing={"peer_tls": str(tmp_path / "tls")}
    )  # fmt: skip
    bed.start(edge=False)
    url = bed.gateways["us"].url
    undisturbed = ask(url)
    got = ask(url, bed.engines["us-0"].kill)
    assert got.seen() == undisturbed.seen()
    assert ": resumed from us in eu" in got.raw
    relay = bed.gateways["us"].relay
    assert relay is not None
    relay.kill()
    assert ask(url).ended, "straight to a region that is reached by TLS"


def test_a_single_region_continues_with_the_engine_that_is_left_or_comes_back(
    real: MakeEngine, make_bed: Callable[..., Bed]
) -> None:
    bed = make_bed(regions={"us": 1}, make_engine=real, relay_flags=())
    bed.start(edge=False)
    url = bed.gateways["us"].url
    undisturbed = ask(url)

    def restart() -> None:
        bed.engines["us-0"].kill()
        bed.engines["us-0"].start()

    got = ask(url, restart)
    assert got.seen() == undisturbed.seen()
    assert ": resumed from us in us" in got.raw


@pytest.mark.parametrize("fault", [KILL, FREEZE])
def test_a_stream_whose_relay_is_lost_before_the_first_token_is_answered_without_it(
    make_bed: Callable[..., Bed], fault: Callable[[Server], None]
) -> None:
    bed = make_bed(regions={"us": 1}, relay_flags=("--relay-status-port", "9906"))
    bed.start(edge=False)
    gateway = bed.gateways["us"]
    relay = gateway.relay
    assert relay is not None
    with ThreadPoolExecutor(1) as pool:
        body = {"model": "llama", "stream": True, "seconds": 3}
        asking = pool.submit(httpx.post, f"{gateway.url}/v1/completions", json=body, timeout=DEADLINE)
        wait_for(lambda: metric(bed, "us", "holdfast_relay_open_streams") == 1, "the relay has it")
        fault(relay)
        assert asking.result().status_code == 200
    assert "x-holdfast-resumable" not in asking.result().headers


@pytest.fixture(scope="module")
def vllm_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two regions whose engines speak as vLLM does, without Holdfast's shim."""
    bed = Bed(
        tmp_path_factory.mktemp("vllm"), regions={"us": 1, "eu": 1}, make_engine=vllm, relay_flags=(),
        protocol=EngineProtocol.HTTP1, route_fields={"progress_timeout": timedelta(seconds=2)},
    )  # fmt: skip
    with bed.running(edge=False):
        yield bed


HANG = pytest.param(lambda server: server.signal(signal.SIGUSR1), id="hangs-behind-a-living-server")


@pytest.mark.parametrize("content", [COMPLETION, CHAT], ids=["completion", "chat"])
@pytest.mark.parametrize("fault", [KILL, HANG])
def test_streams_of_plain_vllm_go_on_also_when_it_hangs(
    vllm_bed: Bed, fault: Callable[[Server], None], content: Any
) -> None:
    engine = vllm_bed.engines["us-0"]
    engine.kill()
    engine.start()
    address = vllm_bed.engine_addresses("us")[0]
    wait_for(lambda: status_of(f"http://{address}:8000/health") == 200, "it is up")
    vllm_bed.repair()
    url = vllm_bed.gateways["us"].url
    whole = ask(url, content=content)
    assert whole.seen()["reasons"] == ["length"]
    stop = whole.text[30:34]

    got = ask(url, lambda: fault(engine), content=content, stop=["zzz", stop])

    assert got.text == whole.text[: whole.text.find(stop)]
    assert (got.seen()["reasons"], got.ended, got.seen()["frames"]) == (["stop"], True, 1)
    assert ": resumed from us in eu" in got.raw or whole.text.find(stop) < 14


def test_a_relay_that_comes_up_after_envoy_is_found_though_nothing_was_asked_so_far(
    make_bed: Callable[..., Bed],
) -> None:
    bed = make_bed(regions={"us": 1}, timing={"relay_port": RELAY_PORT, "unused_interval": 600.0})
    bed.add_gateway("us", Role.REGIONAL, bed.address("us", 1), bed.snapshot("us"))
    gateway = bed.gateways["us"]
    wait_for(lambda: status_of(f"{gateway.url}/ready") == 200, "Envoy is up")
    wait_for(lambda: gateway.stat(rf"^{STREAM}\.health_check\.failure$") > 0, "it has looked for the relay in vain")
    gateway.relay = relay(gateway.directory, gateway.options.listen)
    gateway.relay.start()
    wait_for(lambda: gateway.stat(rf"^{STREAM}\.health_check\.healthy$") == 1, "the relay is found")
