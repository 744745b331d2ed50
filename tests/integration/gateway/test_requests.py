"""What clients see: requests go by their model, errors read like OpenAI's, answers tell their region."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway.bed import Bed, status_of

pytestmark = pytest.mark.integration


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def post(http: aiohttp.ClientSession, url: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
    """Status, JSON and headers of an answer."""
    async with http.post(f"{url}/v1/chat/completions", data=body, headers=headers) as response:
        return response.status, await response.json(), response.headers


@pytest.mark.parametrize("port", ["us", "edge"])
async def test_a_request_is_routed_by_the_model_in_its_body(
    still_bed: Bed, http: aiohttp.ClientSession, port: str
) -> None:
    status, answer, headers = await post(http, still_bed.gateways[port].url, b'{"model": "llama"}')
    assert status == 200
    assert answer["path"] == "/v1/chat/completions"
    assert answer["engine"].startswith(headers["x-holdfast-region"])


async def test_a_regional_gateway_prefers_its_own_engines(still_bed: Bed, http: aiohttp.ClientSession) -> None:
    for region in ("us", "eu"):
        served = []
        for _ in range(20):
            _, answer, headers = await post(http, still_bed.gateways[region].url, b'{"model": "llama"}')
            assert answer["engine"].startswith(headers["x-holdfast-region"])
            served.append(headers["x-holdfast-region"])
        # Not all: on a starved machine an engine may look dead for a moment.
        assert served.count(region) > 15


async def test_the_request_id_is_kept_and_internal_headers_stay_inside(
    still_bed: Bed, http: aiohttp.ClientSession
) -> None:
    url = still_bed.gateways["edge"].url
    given = {"x-request-id": "r-1", "x-holdfast-tenant": "somebody"}
    _, answer, headers = await post(http, url, b'{"model": "llama"}', **given)
    assert answer["headers"]["x-request-id"] == "r-1"
    assert not [name for name in answer["headers"] if name.startswith(("x-holdfast", "x-envoy"))]
    assert not [name for name in headers if name.lower().startswith("x-envoy")]
    _, answer, _ = await post(http, url, b'{"model": "llama"}')
    assert answer["headers"]["x-request-id"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"model": "unknown"}', 404, "model_not_found"),
        (b'{"model": 7}', 404, "model_not_found"),
        (b'{"model": null}', 400, "model_required"),
        (b'{"messages": []}', 400, "model_required"),
        (b"[1, 2]", 400, None),
        (b'{"model": "lla', 400, "invalid_json"),
        (b"", 400, "model_required"),
        (b'{"model": "llama", "prompt": "' + b"x" * 5_000_000 + b'"}', 413, "request_too_large"),
    ],
    ids=["unknown", "number", "null", "missing", "list", "broken", "empty", "too-large"],
)
async def test_a_request_that_cannot_be_routed_gets_an_openai_error(
    still_bed: Bed, http: aiohttp.ClientSession, body: bytes, status: int, code: str | None
) -> None:
    got, answer, headers = await post(http, still_bed.gateways["us"].url, body)
    assert got == status
    assert headers["content-type"] == "application/json"
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert code is None or answer["error"]["code"] == code


@pytest.mark.parametrize(
    ("asked", "passed"), [("30", "30"), ("2.5", "2.5"), ("900", "900"), ("900.5", "900"), ("5000", "900"), (None, None)]
)
async def test_an_engine_is_told_the_clients_time_limit_but_no_longer_one_than_the_services(
    still_bed: Bed, http: aiohttp.ClientSession, asked: str | None, passed: str | None
) -> None:
    headers = {} if asked is None else {"x-holdfast-timeout": asked}
    status, answer, _ = await post(http, still_bed.gateways["edge"].url, b'{"model": "llama"}', **headers)
    assert status == 200
    assert answer["headers"].get("x-holdfast-timeout") == passed


@pytest.mark.parametrize("asked", ["soon", "-1", "1e9", "inf", "", "1, 2"])
async def test_a_time_limit_that_is_no_number_is_refused(
    still_bed: Bed, http: aiohttp.ClientSession, asked: str
) -> None:
    headers = {"x-holdfast-timeout": asked}
    status, answer, _ = await post(http, still_bed.gateways["us"].url, b'{"model": "llama"}', **headers)
    assert (status, answer["error"]["code"]) == (400, "invalid_timeout")


async def test_a_large_prompt_passes(still_bed: Bed, http: aiohttp.ClientSession) -> None:
    body = b'{"model": "llama", "prompt": "' + b"x" * 3_500_000 + b'"}'
    status, answer, _ = await post(http, still_bed.gateways["edge"].url, body)
    assert (status, answer["size"]) == (200, 3_500_000)


@pytest.mark.parametrize("status", [400, 401, 422, 429, 500, 503])
async def test_an_engines_own_error_reaches_the_client_as_it_is(
    still_bed: Bed, http: aiohttp.ClientSession, status: int
) -> None:
    body = b'{"model": "llama", "status": %d}' % status
    got, answer, _ = await post(http, still_bed.gateways["edge"].url, body)
    assert got == status
    assert "engine" in answer


async def test_the_models_are_listed(still_bed: Bed, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{still_bed.gateways['edge'].url}/v1/models") as response:
        assert response.status == 200
        listing = await response.json()
    assert [card["id"] for card in listing["data"]] == ["llama"]


async def test_the_metrics_port_gives_metrics_and_nothing_else_of_the_admin_interface(still_bed: Bed) -> None:
    options = still_bed.gateways["us"].options
    url = f"http://{options.listen}:{options.metrics_port}"
    assert status_of(f"{url}/stats/prometheus") == 200
    assert status_of(f"{url}/live") == 200
    assert {status_of(f"{url}{path}") for path in ("/", "/config_dump", "/stats", "/quitquitquit")} == {404}
