"""Envoy itself accepts every golden file: bootstrap, clusters, endpoints, routes and listeners."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.integration.gateway import certificates
from tests.integration.gateway.bed import Gateway, free_port, status_of, wait_for
from tests.integration.gateway.processes import gateway

from holdfast_gateway.files import to_text
from holdfast_gateway.options import Options, Role

pytestmark = pytest.mark.integration

GOLDEN = Path(__file__).parents[2] / "golden" / "gateway"
PLACE = "/var/lib/holdfast-gateway"


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_envoy_accepts_the_golden_files(golden: Path, tmp_path: Path) -> None:
    options = replace(Options(role=Role.REGIONAL), admin_port=free_port(), listen=f"127.{random.randint(1, 250)}.251.1")
    for name, text in split(golden.read_text()):
        moved = text.replace(PLACE, str(tmp_path)).replace("0.0.0.0", options.listen)
        moved = moved.replace("port_value: 9901", f"port_value: {options.admin_port}")
        moved = moved.replace("/etc/holdfast/peer-tls", str(tmp_path / "tls"))
        moved = moved.replace("/etc/holdfast/client-tls", str(tmp_path / "tls"))
        (tmp_path / name).write_text(to_text(name, yaml.safe_load(moved)))
    (tmp_path / "ledger").mkdir()
    certificates.authority(tmp_path / "tls")
    certificates.certificate(tmp_path / "tls")
    listeners = len(yaml.safe_load((tmp_path / "listeners.json").read_text())["resources"])
    found = Gateway(tmp_path, options, gateway(tmp_path, options.admin_port))
    found.server.start()
    try:
        wait_for(lambda: status_of(f"{found.admin_url}/ready") == 200, "Envoy is up")
        wait_for(lambda: found.stat("listener_manager.total_listeners_active") == listeners + 1, "all listeners work")
        assert found.stat("update_rejected") == 0
        assert found.stat("init_fetch_timeout") == 0
        assert found.stat(r"update_success$") > 0
        assert not re.search(r"error|critical|rejected", found.server.log())
    finally:
        found.server.kill()


def split(text: str) -> list[tuple[str, str]]:
    """(file name, content) of a golden file; where a name comes twice, the later content is the one in use."""
    parts = re.split(r"^--- # (.+)\n", text, flags=re.MULTILINE)[1:]
    return list(dict(zip(parts[::2], parts[1::2], strict=True)).items())
