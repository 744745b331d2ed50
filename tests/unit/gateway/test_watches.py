"""Services that Envoy could not follow are left out before it ends of them."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from tests.unit.gateway.builders import route

from holdfast_gateway.options import Options, Role
from holdfast_gateway.render.files import ENDPOINTS_PREFIX, files, files_of_a_service
from holdfast_gateway.state import Snapshot
from holdfast_gateway.watches import RESERVE, admit, free_instances


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 5), st.integers(0, 200))
def test_what_is_served_stays_and_of_the_others_come_as_many_as_there_is_room_for(
    known: int, new: int, files: int, free: int
) -> None:
    routes = [route(f"service-{number}") for number in range(known + new)]
    keys = {each.key for each in routes[:known]}
    admitted, problems = admit(routes, keys, files, lambda wanted: min(free, wanted))
    assert keys <= {each.key for each in admitted}
    added = len(admitted) - known
    assert added == min(new, max(0, free - RESERVE) // files)
    assert len(problems) == new - added
    assert list(admitted) == [each for each in routes if each in admitted], "in their order"


def test_nothing_is_tried_where_nothing_is_new() -> None:
    def never(_: int) -> int:
        raise AssertionError

    served = (route(),)
    assert admit(served, {served[0].key}, 3, never) == (served, ())


def test_the_kernel_is_asked_and_nothing_is_kept() -> None:
    assert [free_instances(2) for _ in range(300)] == [2] * 300


def test_a_service_takes_as_many_files_as_it_is_counted_for() -> None:
    for options in (Options(role=Role.REGIONAL), Options(role=Role.REGIONAL, relay_port=1), Options(role=Role.EDGE)):
        one, two = (
            sum(name.startswith(ENDPOINTS_PREFIX) for name in files(Snapshot(served), options, "/d"))
            for served in ((route("a"),), (route("a"), route("b")))
        )
        assert two - one == files_of_a_service(options)
