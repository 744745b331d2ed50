"""The last lines of a child's output, however it comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast_engine.engines.child import KEPT_LENGTH, KEPT_LINES, LastLines


@given(st.lists(st.integers(1, 9)))
def test_lines_cut_anywhere_are_kept_whole_with_the_one_that_has_no_end(cuts: list[int]) -> None:
    lines, rest = LastLines(), "one\ntwo é\r10%\r20%\n\nlast".encode()
    for length in cuts:
        lines.feed(rest[:length])
        rest = rest[length:]
    lines.feed(rest)
    assert lines.read() == ["one", "two é", "10%", "20%", "last"]


def test_what_is_kept_is_bounded() -> None:
    lines = LastLines()
    for number in range(2 * KEPT_LINES):
        lines.feed(f"{number}\n".encode())
    lines.feed(b"x" * 1_000_000)
    *kept, last = lines.read()
    assert kept == [str(number) for number in range(KEPT_LINES, 2 * KEPT_LINES)]
    assert len(last) == KEPT_LENGTH
