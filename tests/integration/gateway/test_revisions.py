"""Several revisions answer by share, with real Envoys: a user stays on a side, and a side that is away fails nobody."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from tests.integration.gateway.bed import wait_for
from tests.integration.gateway.sides import NEW, OLD, Sides, ask, parts

from holdfast.api.names import PROBE_HEADER, REVISION_HEADER, SERVICE_HEADER, TENANT_HEADER
from holdfast_gateway.traffic import STATS, read_stats

pytestmark = pytest.mark.integration
USERS = [f"user-{number}" for number in range(200)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """Two regions with engines of both revisions, and an edge."""
    bed = Sides(tmp_path_factory.mktemp("sides"), runs={"us": (NEW, OLD, OLD), "eu": (NEW, OLD)})
    with bed.running():
        yield bed


@pytest.fixture
def bed(whole: Sides) -> Sides:
    """With everything alive, and shared evenly."""
    for region in whole.regions:
        for at, address in enumerate(whole.engine_addresses(region)):
            if whole.engines[f"{region}-{at}"].running():
                whole.set_health(address, 200)
            else:
                whole.engines[f"{region}-{at}"].start()
    whole.share(new=50, old=50)
    whole.repair()
    return whole


def side_of(bed: Sides, engine: str) -> str:
    """The revision that an engine (`us-0`) runs."""
    region, number = engine.split("-")
    return bed.runs[region][int(number)]


def test_a_user_meets_the_same_revision_at_every_gateway_and_every_time(bed: Sides) -> None:
    first = bed.sides_of("us", USERS)
    assert bed.sides_of("us", USERS) == bed.sides_of("eu", USERS) == bed.sides_of("edge", USERS) == first
    print(f"50 : 50 for {len(USERS)} users: {parts(first)}")
    assert min(parts(first).values()) > 0.35 * len(USERS)


SOME = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))


@SOME
@given(weights=st.lists(st.integers(0, 100), min_size=3, max_size=3).map(sorted), salt=st.text("abc", max_size=3))
def test_whoever_is_on_the_new_side_stays_there_as_its_share_grows(whole: Sides, weights: list[int], salt: str) -> None:
    users = [f"{salt}{user}" for user in USERS[:60]]
    before: set[str] = set()
    for unit, weight in enumerate(weights, 1):  # what counts is the part, in whichever units it is written
        whole.share(new=unit * weight, old=unit * (100 - weight))
        sides = whole.sides_of("edge", users)
        now = {user for user, side in sides.items() if side == NEW}
        assert before <= now
        assert (weight == 0) <= (not now)
        assert (weight == 100) <= (len(now) == len(users))
        before = now


def test_from_5_to_25_percent_nobody_changes_sides_but_those_who_come(bed: Sides) -> None:
    bed.share(new=5, old=95)
    small = {user for user, side in bed.sides_of("us", USERS).items() if side == NEW}
    bed.share(new=25, old=75)
    large = {user for user, side in bed.sides_of("eu", USERS).items() if side == NEW}
    print(
        f"at 5 %: {len(small)} of {len(USERS)} users on the new side, at 25 %: {len(large)}, who left: {small - large}"
    )
    assert small < large
    assert 0.15 < len(large) / len(USERS) < 0.35


def test_the_answers_header_names_the_revision_of_the_very_engine_that_gave_it(bed: Sides) -> None:
    for shares in ({"new": 50, "old": 50}, {}):
        bed.share(**shares)
        with httpx.Client(timeout=20) as client:
            seen = set()
            for number in range(40):
                answer = ask(client, bed.gateways["edge"].url, **{"x-user": str(number)})
                assert answer.headers[REVISION_HEADER] == side_of(bed, answer.json()["engine"])
                seen.add(answer.headers[REVISION_HEADER])
                headers = answer.json()["headers"]
                assert not [name for name in headers if name.startswith(("x-holdfast", "x-envoy"))]
        assert seen == {NEW, OLD}


def test_without_a_user_the_tenant_decides_and_without_either_chance(bed: Sides) -> None:
    def ask_peer(**headers: str) -> str:
        url = bed.gateways["us"].peer_url
        given = {SERVICE_HEADER: "default/chat", **headers}
        return ask(client, url, **given).headers[REVISION_HEADER]

    with httpx.Client(timeout=20) as client:
        tenants = {name: {ask_peer(**{TENANT_HEADER: name}) for _ in range(5)} for name in USERS[:20]}
        assert all(len(sides) == 1 for sides in tenants.values())
        assert len(set.union(*tenants.values())) == 2
        of_user = ask_peer(**{"x-user": "anna"})
        assert {ask_peer(**{"x-user": "anna", TENANT_HEADER: name}) for name in USERS[:10]} == {of_user}
        assert len({ask_peer() for _ in range(40)}) == 2


def test_no_client_chooses_its_revision(bed: Sides) -> None:
    bed.share(new=0, old=100)
    with httpx.Client(timeout=20) as client:
        for headers in ({REVISION_HEADER: NEW}, {"x-envoy-attempt-count": "9"}, {PROBE_HEADER: "1"}):
            assert ask(client, bed.gateways["us"].url, **headers).headers[REVISION_HEADER] == OLD


def test_a_peer_that_names_a_revision_gets_it_or_a_refusal(bed: Sides) -> None:
    url = f"{bed.gateways['us'].peer_url}/v1/completions"
    for shares in ({"new": 0, "old": 100}, {}):
        bed.share(**shares)
        for revision in (NEW, OLD, NEW, OLD):
            headers = {SERVICE_HEADER: "default/chat", REVISION_HEADER: revision}
            answer = httpx.post(url, json={"model": "llama"}, headers=headers)
            assert (answer.status_code, answer.headers[REVISION_HEADER]) == (200, revision)
        headers = {SERVICE_HEADER: "default/chat", REVISION_HEADER: "gone"}
        answer = httpx.post(url, json={"model": "llama"}, headers=headers)
        assert (answer.status_code, answer.headers["x-holdfast-revision-gone"]) == (503, "true")


def unwell(bed: Sides, region: str, revision: str) -> None:
    """The engines of a revision answer, but their health checks fail."""
    for at, address in enumerate(bed.engine_addresses(region)):
        if bed.runs[region][at] == revision:
            bed.set_health(address, 503)
    bed.wait_side(region, revision, 0)
    # Those of all sides are checked by a cluster of their own.
    gateway, weighted = bed.gateways[region], [share.name for share in bed.shares if share.weight]
    sides = rf"^cluster\.local/default/chat/({'|'.join(weighted)})\.membership_healthy$"
    wait_for(lambda: gateway.healthy_engines() == gateway.stat(sides), "they are out")


def counted(bed: Sides, region: str) -> tuple[int, int]:
    """Answers of a region and errors among them, as its observers are told."""
    url = f"{bed.gateways[region].admin_url}/stats?format=json&filter={urllib.request.quote(STATS)}"
    found = read_stats(httpx.get(url).json())["default/chat"]
    return found.completed, found.errors


def test_a_side_without_healthy_engines_here_is_answered_by_a_region_that_has_it_then_by_the_other_side(
    bed: Sides,
) -> None:
    users = USERS[:60]
    sides = bed.sides_of("us", users)
    unwell(bed, "us", NEW)
    assert bed.gateways["eu"].healthy_regions() == 2  # the region is well, with the other side
    _, errors = counted(bed, "us")
    assert bed.sides_of("us", users) == bed.sides_of("edge", users) == sides
    assert counted(bed, "us")[1] == errors  # what another region answers is no error of this one
    unwell(bed, "eu", NEW)
    for gateway in ("us", "eu", "edge"):
        assert set(bed.sides_of(gateway, users).values()) == {OLD}
    unwell(bed, "us", OLD)
    unwell(bed, "eu", OLD)
    # The checks themselves may be what is wrong: all are used.
    assert set(bed.sides_of("edge", users).values()) <= {NEW, OLD}


def test_a_side_whose_engines_die_under_requests_fails_nobody(bed: Sides) -> None:
    bed.engines["us-0"].kill()
    bed.engines["eu-0"].kill()
    for gateway in ("us", "eu", "edge"):
        assert set(bed.sides_of(gateway, USERS[:30]).values()) == {OLD}


def test_an_observers_own_requests_reach_a_region_whichever_side_it_has(bed: Sides) -> None:
    unwell(bed, "us", NEW)
    headers = {SERVICE_HEADER: "default/chat", PROBE_HEADER: "1"}
    with httpx.Client(timeout=20) as client:
        for _ in range(20):
            assert ask(client, bed.gateways["us"].peer_url, **headers).headers[REVISION_HEADER] == OLD


def test_a_revision_that_gets_nothing_also_speaks_for_no_region(bed: Sides) -> None:
    bed.share(new=0, old=100)
    unwell(bed, "us", OLD)
    wait_for(lambda: bed.gateways["eu"].healthy_regions() == 1, "us is not ready")
    assert set(bed.sides_of("us", USERS[:30]).values()) == {OLD}
