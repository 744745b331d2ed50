"""With mutual TLS, gateways reach each other, and nobody else reaches a peer port."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.gateway import certificates
from tests.integration.gateway.bed import Bed, status_of
from tests.integration.gateway.load import Load, failed, send_load, summary

pytestmark = pytest.mark.integration


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
