"""Options of limits that cannot work together are refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast_gateway.__main__ import main
from holdfast_gateway.limiter.process import STORE, command

LIMITS = ["--limits", "127.0.0.1:9907"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (LIMITS, "--auth=Required"),
        (["--auth=Required", "--limits", "127.0.0.1"], "127.0.0.1:9907"),
        (["--auth=Required", "--limits", "host:none"], "127.0.0.1:9907"),
        (["--auth=Required", "--tokens-per-minute=5"], "--limits"),
        (["--auth=Required", "--tokens-per-minute=5", *LIMITS], "--ledger"),
    ],
)
def test_limits_that_nobody_could_keep_are_refused_with_what_to_do(
    tmp_path: Path, flags: list[str], words: str
) -> None:
    result = CliRunner().invoke(main, ["init", "--dir", str(tmp_path), *flags])
    assert result.exit_code == 2
    assert words in result.output


def test_a_limiter_without_an_address_or_with_a_store_that_is_none_says_so(tmp_path: Path) -> None:
    start = ["limits", "--dir", str(tmp_path)]
    result = CliRunner().invoke(main, start)
    assert (result.exit_code, "--limits HOST:PORT" in result.output) == (2, True)
    result = CliRunner().invoke(main, [*start, *LIMITS, "--limits-store", "mysql://user:secret@host"])
    assert (result.exit_code, "'mysql' is no store" in result.output, "secret" in result.output) == (1, True, False)


def test_the_stores_url_stands_in_the_environment_and_not_in_the_command_line(tmp_path: Path) -> None:
    flags = {
        "role": "edge", "listen": "127.0.0.1", "relay_port": 0, "ledger": "", "limits": "127.0.0.1:9907",
        "limits_store": "redis://:secret@host", "limits_store_timeout": 0.03, "limits_status_port": 0,
    }  # fmt: skip
    line, environment = command(tmp_path, flags)
    assert "secret" not in " ".join(line)
    assert environment == {STORE: "redis://:secret@host"}
