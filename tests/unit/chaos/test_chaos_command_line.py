"""What the command line refuses before it starts anything."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from holdfast_chaos.__main__ import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("demo --fault-at 40 --heal-at 20", "--fault-at must come before --heal-at"),
        ("demo --seconds 30", "before the end"),
        ("demo --fault delay", "Invalid value for '--fault'"),
        ("demo --rate 0", "Invalid value for '--rate'"),
        ("load --model tiny", "Missing option '--url'"),
        ("load --url http://127.0.0.1:1 --model tiny --header nothing", "has no colon"),
    ],
)
def test_what_makes_no_sense_is_refused(words: str, expected: str) -> None:
    result = CliRunner().invoke(main, words.split())

    assert result.exit_code == 2
    assert expected in result.output
