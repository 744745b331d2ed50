"""Where gateways demand certificates of each other, observers show one too, and see what they see in plain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.gateway import certificates
from tests.integration.gateway.bed import Bed
from tests.integration.gateway.load import Load, failed, send_load

from holdfast.adapters.gateways import Gateways
from holdfast.adapters.probes import Observer, Target
from holdfast.api.conditions import Reason
from holdfast.api.region import GatewayAddress, RegionSpec, Verdict
from holdfast.domain.health import Limits, Thresholds
from holdfast.errors import ConfigError

pytestmark = pytest.mark.integration

DEADLINE = 30.0
REGIONS = ("us", "eu")
QUICK = Thresholds(down=0.3, up=0.3)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bed, Path]]:
    """Two regions that demand certificates, and the folder of theirs."""
    folder = tmp_path_factory.mktemp("peers")
    certificates.mounted(folder, 1)
    bed = Bed(tmp_path_factory.mktemp("guarded"), regions=dict.fromkeys(REGIONS, 1), timing={"peer_tls": str(folder)})
    with bed.running(edge=False):
        yield bed, folder


def specs(bed: Bed) -> dict[str, RegionSpec]:
    return {name: RegionSpec(gateway=GatewayAddress(address=bed.address(name, 1))) for name in REGIONS}


async def see(gateways: Gateways, bed: Bed, done: Callable[[Observer], bool]) -> Observer:
    """An observer that looks until something is seen."""
    observer, until = Observer(), time.monotonic() + DEADLINE
    model = bed.route("us").model
    targets = [Target("default/chat", model, name, QUICK, Limits()) for name in REGIONS]
    while time.monotonic() < until:
        gateways.renew()
        await observer.observe(gateways, specs(bed), targets)
        if done(observer):
            return observer
        await asyncio.sleep(0.1)
    pytest.fail(f"not seen: {observer.services}")


def well(observer: Observer) -> bool:
    return [each.verdict for each in observer.services.values()] == [Verdict.HEALTHY] * len(REGIONS)


async def test_an_observer_with_the_gateways_certificate_sees_engines_that_die_and_others_that_live(
    guarded: tuple[Bed, Path],
) -> None:
    bed, folder = guarded
    async with Gateways(folder) as gateways:
        await see(gateways, bed, well)
        bed.engines["eu-0"].kill()
        found = await see(
            gateways, bed, lambda seen: seen.services["eu", "default/chat"].reason is Reason.NO_ENGINE_ANSWERS
        )
        assert found.services["us", "default/chat"].reason is Reason.ANSWERING
    bed.repair()


async def test_without_a_certificate_an_observer_sees_nobody_and_holds_nothing_against_anybody(
    guarded: tuple[Bed, Path], tmp_path: Path
) -> None:
    bed, _ = guarded
    certificates.authority(tmp_path)
    certificates.certificate(tmp_path)
    for folder in (None, tmp_path):
        async with Gateways(folder) as gateways:
            observer = Observer()
            for _ in range(5):
                await observer.observe(gateways, specs(bed), [])
                await asyncio.sleep(0.1)
        assert [each.verdict for each in observer.regions.values()] == [Verdict.UNKNOWN] * len(REGIONS)
        (said,) = {each.message for each in observer.regions.values()}
        assert said.startswith("This observer reaches no region at all. The gateway of us does not answer: ")
        assert ("its certificate is not trusted" in said) == (folder is not None)


async def test_a_renewed_authority_counts_at_once_and_costs_no_request(guarded: tuple[Bed, Path]) -> None:
    bed, folder = guarded
    async with Gateways(folder) as gateways:
        await see(gateways, bed, well)
        load = asyncio.create_task(send_load(bed.gateways["us"].url, Load()))
        certificates.mounted(folder, 2)
        bed.gateways["eu"].server.kill()
        await see(gateways, bed, lambda seen: not well(seen))
        await asyncio.to_thread(bed.repair)
        await see(gateways, bed, well)
        assert failed(await load) == []


async def test_a_certificate_that_cannot_be_used_is_told_at_the_start_and_later_leaves_the_one_before(
    guarded: tuple[Bed, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bed, folder = guarded
    with pytest.raises(ConfigError, match=r"must hold tls\.crt, tls\.key and ca\.crt"):
        Gateways(tmp_path)
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    async with Gateways(tmp_path) as gateways:
        (tmp_path / "tls.crt").write_text("no certificate")
        await see(gateways, bed, well)
    assert "observing with the certificate of before" in caplog.text
