"""Clients that are slow, broken, hostile or many: a real Envoy goes on answering the others."""

from __future__ import annotations

import json
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import psutil
import pytest
from tests.integration.gateway.bed import Bed, status_of, wait_for

from holdfast_gateway import files
from holdfast_gateway.render.files import GATEWAY, LISTENERS, service_file

pytestmark = pytest.mark.integration
IDLE = 10_000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ANSWER = {"model": "llama", "prompt": "hello"}
SERVED = (GATEWAY, service_file("default/chat"))
REFUSED = r"^listener_manager\.lds\.update_(rejected|failure)$"
"""Envoy's counter of files with listeners that it did not take."""
LINE = b"POST /v1/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One region."""
    made = Bed(tmp_path_factory.mktemp("robustness"), regions={"us": 1})
    with made.running(edge=False):
        yield made


@pytest.fixture(autouse=True)
def others_are_answered(bed: Bed) -> Iterator[None]:
    """Whatever a test did, the same Envoy answers afterwards, and holds on to no request."""
    before = bed.gateways["us"].envoy_pid()
    yield
    assert answered(bed)
    wait_for(lambda: bed.gateways["us"].stat(r"^http\.client\.downstream_rq_active$") == 0, "no request is left")
    assert bed.gateways["us"].envoy_pid() == before


def answered(bed: Bed) -> bool:
    """Whether a request gets its answer."""
    return httpx.post(f"{bed.gateways['us'].url}/v1/completions", json=ANSWER, timeout=20).status_code == 200


def memory(bed: Bed) -> int:
    """Bytes that Envoy occupies."""
    return int(psutil.Process(bed.gateways["us"].envoy_pid()).memory_info().rss)


def connect(bed: Bed, seconds: float = 20.0) -> socket.socket:
    """A connection to the client port."""
    options = bed.gateways["us"].options
    return socket.create_connection((options.listen, options.client_port), seconds)


def send(bed: Bed, data: bytes) -> bytes:
    """What comes back until the connection is closed, if it is; empty after a reset."""
    with connect(bed, 5.0) as raw:
        got = b""
        try:
            raw.sendall(data)
            while more := raw.recv(65536):
                got += more
        except TimeoutError:
            pass
        except OSError:
            return got
        return got


def chunked(body: bytes) -> bytes:
    return LINE + b"transfer-encoding: chunked\r\n\r\n" + body


def test_many_idle_connections_cost_little_and_hold_up_nobody(bed: Bed) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 500:
        pytest.skip(f"{hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 500), hard))
    before = memory(bed)
    with ExitStack() as opened:
        for _ in range(IDLE):
            opened.enter_context(connect(bed))
        active = r"^http\.client\.downstream_cx_active$"
        wait_for(lambda: bed.gateways["us"].stat(active) >= IDLE, "all are accepted")
        times = []
        for _ in range(20):
            start = time.monotonic()
            assert answered(bed)
            times.append(time.monotonic() - start)
        each = (memory(bed) - before) / IDLE
        took = 1000 * sorted(times)[10]
        print(f"{IDLE:,} idle connections: {each / 1024:.1f} KiB each; an answer beside them takes {took:.1f} ms")
    wait_for(lambda: bed.gateways["us"].stat(active) < 100, "all are given up")


def test_beyond_the_limit_connections_are_closed_and_peers_and_probes_still_come_in(
    make_bed: Callable[..., Bed],
) -> None:
    small = make_bed(regions={"us": 1}, timing={"max_connections": 20})
    small.start(edge=False)
    gateway = small.gateways["us"]
    with ExitStack() as opened:
        for _ in range(40):
            opened.enter_context(connect(small))
        refused = r"^listener\..*\.downstream_global_cx_overflow$"
        wait_for(lambda: gateway.stat(refused) >= 20, "some are refused")
        assert status_of(f"{gateway.peer_url}/ready/default/chat") == 200
        assert status_of(f"http://{gateway.options.listen}:{gateway.options.metrics_port}/live") == 200
    wait_for(lambda: status_of(f"{gateway.url}/ready") == 200, "there is room again")


@pytest.mark.parametrize(
    "headers",
    [b"x-bomb: " + b"a" * 1_000_000 + b"\r\n", b"".join(b"x-%d: 1\r\n" % number for number in range(5000))],
    ids=["one of a megabyte", "five thousand"],
)
def test_a_bomb_of_headers_is_refused(bed: Bed, headers: bytes) -> None:
    before = memory(bed)
    for _ in range(20):
        assert send(bed, LINE + headers + b"\r\n")[:12] in (b"HTTP/1.1 431", b"")
    assert memory(bed) - before < 20 * 1024 * 1024


def test_a_bomb_of_headers_by_http2_is_refused(bed: Bed) -> None:
    headers = {f"x-{number}": "a" * 1000 for number in range(200)}
    with httpx.Client(http1=False, http2=True, timeout=20) as client:
        try:
            status = client.post(f"{bed.gateways['us'].url}/v1/completions", json=ANSWER, headers=headers).status_code
        except httpx.TransportError:
            status = 431  # the stream or the connection was reset
    assert status == 431


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-5\r\n{}\r\n",
        b"ffffffffffffffffff\r\n{}\r\n",
        b"2\r\n{}garbage",
        b"5;" + b"x" * 200_000,
    ],
    ids=["no number", "negative", "larger than a number", "no end", "an endless extension"],
)
def test_chunked_garbage_is_refused(bed: Bed, body: bytes) -> None:
    assert send(bed, chunked(body))[:12] in (b"HTTP/1.1 400", b"")


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 4096, b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", PREFACE + b"\xff" * 512]
)
def test_what_is_no_http_is_answered_with_nothing_but_an_error(bed: Bed, garbage: bytes) -> None:
    got = send(bed, garbage)
    assert got[:12] in (b"HTTP/1.1 400", b"") or (garbage.startswith(PREFACE) and b"HTTP" not in got)


def test_two_lengths_in_one_request_are_refused(bed: Bed) -> None:
    body = b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
    assert send(bed, LINE + body)[:12] == b"HTTP/1.1 400"


def test_headers_that_never_end_are_given_up(bed: Bed) -> None:
    with connect(bed) as raw:
        raw.sendall(LINE)
        raw.settimeout(30)
        start = time.monotonic()
        assert raw.recv(65536)[:12] == b"HTTP/1.1 408"
        print(f"given up after {time.monotonic() - start:.1f} s")


@pytest.mark.parametrize("how", ["half", "reset"])
def test_a_client_that_closes_takes_its_request_from_the_engine(bed: Bed, how: str) -> None:
    engines = r"^cluster\.local/default/chat\.upstream_rq_"
    gateway = bed.gateways["us"]
    given_up = gateway.stat(f"{engines}tx_reset$")
    body = json.dumps({**ANSWER, "seconds": 60}).encode()
    with connect(bed) as raw:
        raw.sendall(LINE + b"content-length: %d\r\n\r\n" % len(body) + body)
        wait_for(lambda: gateway.stat(f"{engines}active$") == 1, "it runs")
        start = time.monotonic()
        if how == "half":
            raw.shutdown(socket.SHUT_WR)
        else:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        wait_for(lambda: gateway.stat(f"{engines}tx_reset$") > given_up, "the engine is told")
        print(f"{how}: given up after {time.monotonic() - start:.2f} s")
    assert gateway.stat(f"{engines}active$") == 0


def half(good: str) -> str:
    return good[: len(good) // 2]


def no_text(_good: str) -> str:
    return "\x00\x01"


def no_such_type(good: str) -> str:
    return good.replace("envoy.config", "envoy.nonsense")


@pytest.mark.parametrize("name", [*SERVED, LISTENERS])
@pytest.mark.parametrize("broken", [half, no_text, no_such_type])
def test_a_file_that_is_broken_changes_nothing(bed: Bed, name: str, broken: Callable[[str], str]) -> None:
    gateway = bed.gateways["us"]
    good = (gateway.directory / name).read_text()

    def refused() -> int:
        return gateway.server.log().count(f"{name} cannot be read") if name in SERVED else gateway.stat(REFUSED)

    before = refused()
    files.replace(gateway.directory / name, broken(good))
    wait_for(lambda: refused() > before, "it is refused")
    assert answered(bed)
    assert status_of(f"{gateway.url}/ready") == 200
    files.replace(gateway.directory / name, good)
    assert answered(bed)
