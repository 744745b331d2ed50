"""With mutual TLS, gateways reach each other, and nobody else reaches a peer port."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway import certificates
from tests.integration.gateway.bed import Bed, status_of
from tests.integration.gateway.load import Load, failed, send_load, summary

from holdfast_gateway.options import PeerTls

pytestmark = pytest.mark.integration

PACE = 1.0
"""Seconds between the change of one gateway and that of the next."""


async def test_gateways_reach_each_other_and_nobody_without_a_certificate_reaches_a_peer_port(
    make_bed: Callable[..., Bed], tmp_path: Path
) -> None:
    folder, stranger = tmp_path / "tls", tmp_path / "stranger"
    for place in (folder, stranger):
        certificates.authority(place)
        certificates.certificate(place)
    bed = make_bed(regions={"us": 1, "eu": 1}, timing={"peer_tls": str(folder)})
    bed.start()
    outcomes = await send_load(bed.gateways["edge"].url, Load(), bed.gateways["eu"].server.kill)
    print(summary(outcomes))
    assert failed(outcomes) == []
    peer = bed.gateways["us"].peer_url
    assert status_of(f"{peer}/ready") == 0, "no plain text"
    assert ready_with(folder, folder, peer) == 200
    assert ready_with(folder, None, peer) == 0, "no certificate"
    assert ready_with(folder, stranger, peer) == 0, "another authority's certificate"


def ready_with(authority: Path, own: Path | None, peer: str) -> int:
    """Status of a peer port's `/ready`, asked with the certificate in `own`; 0 if the connection is refused."""
    context = ssl.create_default_context(cafile=str(authority / "ca.crt"))
    context.check_hostname = False
    if own is not None:
        context.load_cert_chain(own / "tls.crt", own / "tls.key")
    url = f"{peer.replace('http:', 'https:')}/ready"
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as response:
            return int(response.status)
    except OSError:
        return 0


async def test_a_fleet_turns_to_tls_and_back_under_load_gateway_by_gateway_and_costs_no_request(
    make_bed: Callable[..., Bed], tmp_path: Path
) -> None:
    certificates.authority(tmp_path / "tls")
    certificates.certificate(tmp_path / "tls")
    bed = make_bed(regions={"us": 1, "eu": 1})
    bed.start()
    there: list[dict[str, Any]] = [{"peer_tls": str(tmp_path / "tls"), "peer_tls_mode": mode} for mode in PeerTls]
    steps = [*there, *reversed(there[:-1]), {"peer_tls": ""}]
    # A region without engines sends all that it gets to the other one.
    bed.engines["us-0"].kill()
    running = asyncio.create_task(send_load(bed.gateways["edge"].url, Load(rate=40, seconds=PACE * 3 * len(steps) + 2)))
    beside = asyncio.create_task(send_load(bed.gateways["us"].url, Load(rate=10, seconds=PACE * 3 * len(steps) + 2)))
    for step in steps:
        for name, found in bed.gateways.items():
            found.options = replace(found.options, **step)
            found.apply(bed.edge_snapshot() if name == "edge" else bed.snapshot(name))
            await asyncio.sleep(PACE)
        open_to_all = step.get("peer_tls_mode") is not PeerTls.REQUIRED
        assert (status_of(f"{bed.gateways['us'].peer_url}/ready") == 200) == open_to_all, step
        by_tls = ready_with(tmp_path / "tls", tmp_path / "tls", bed.gateways["us"].peer_url)
        assert (by_tls == 200) == bool(step["peer_tls"]), step
    outcomes = [*await running, *await beside]
    print(summary(outcomes))
    assert failed(outcomes) == []
