"""The front: TLS with certificates that are renewed under open connections, and pages of other origins."""

from __future__ import annotations

import hashlib
import http.client
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.integration.gateway import certificates
from tests.integration.gateway.bed import Bed, wait_for

from holdfast_gateway.options import Auth
from holdfast_gateway.tenants import Tenant

pytestmark = pytest.mark.integration

PAGE, KEY = "https://chat.example.com", "key-of-alice-0001"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


def shown(address: tuple[str, int]) -> str:
    """Fingerprint of the certificate that a port shows to a new connection; empty while it takes none."""
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(address, timeout=5))).hexdigest()
    except OSError:
        return ""


def wanted(folder: Path) -> str:
    """Fingerprint of the certificate in a folder."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert((folder / "tls.crt").read_text())).hexdigest()


def test_a_renewed_certificate_is_shown_and_closes_no_connection(make_bed: Callable[..., Bed], tmp_path: Path) -> None:
    folder = tmp_path / "front"
    folder.mkdir()
    certificates.mounted(folder, 1)
    bed = make_bed(regions={"us": 1}, timing={"client_tls": str(folder)})
    bed.start(edge=False)
    options = bed.gateways["us"].options
    address = options.listen, options.client_port
    assert shown(address) == wanted(folder)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(*address, timeout=20, context=context)
    connection.connect()
    connection.auto_open = 0
    for number in (2, 3):
        certificates.mounted(folder, number)
        wait_for(lambda: shown(address) == wanted(folder), "the new certificate is shown")
        connection.request("GET", "/v1/models")
        assert connection.getresponse().read()
    with httpx.Client(http2=True, verify=False) as client:
        answer = client.post(f"{bed.gateways['us'].url}/v1/completions", json={"model": "llama"})
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway that knows one origin and one tenant."""
    bed = Bed(
        tmp_path_factory.mktemp("pages"), regions={"us": 1}, tenants=(Tenant(name="alice", keys=(KEY,)),),
        timing={"cors_origins": (PAGE, "http://localhost:3000"), "auth": Auth.REQUIRED},
    )  # fmt: skip
    try:
        bed.start(edge=False)
        yield bed.gateways["us"].url
    finally:
        bed.stop()


def test_a_known_page_may_ask_without_a_key_whether_it_may_ask(pages: str) -> None:
    answer = httpx.options(f"{pages}/v1/chat/completions", headers=PREFLIGHT | {"origin": PAGE})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers


def test_other_pages_may_not(pages: str) -> None:
    answer = httpx.options(f"{pages}/v1/chat/completions", headers=PREFLIGHT | {"origin": "https://evil.example.com"})
    assert answer.status_code == 401
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
@pytest.mark.parametrize(
    ("key", "body", "status"),
    [(KEY, b'{"model": "llama"}', 200), (KEY, b'{"model": "none"}', 404), (KEY, b"{", 400), (KEY, b"[1]", 400),
     (KEY, b"", 400), ("wrong", b'{"model": "llama"}', 401)],
)  # fmt: skip
def test_a_known_page_sees_answers_and_errors_alike(
    pages: str, key: str, body: bytes, status: int, origin: str
) -> None:
    headers = {"origin": origin, "authorization": f"Bearer {key}"}
    answer = httpx.post(f"{pages}/v1/chat/completions", content=body, headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, origin)
    assert "retry-after" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(("path", "status"), [("/v1/models", 200), ("/v1/models/none", 404), ("/x", 404)])
def test_a_known_page_sees_what_the_gateway_answers_by_itself(pages: str, path: str, status: int) -> None:
    answer = httpx.get(f"{pages}{path}", headers={"origin": PAGE, "x-api-key": KEY})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, PAGE)
