"""Options of `serve`, on the command line or as environment variables: what is refused, and in which words."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from holdfast_engine.__main__ import serve


def refusal(*arguments: str, **environment: str) -> str:
    """What is said of these; the engine is not started."""
    result = CliRunner().invoke(serve, ["--served-name", "tiny", *arguments], env=environment)
    assert result.exit_code == 2, result.output
    return result.output


def test_every_option_can_be_an_environment_variable() -> None:
    assert "--max-queue" in refusal(HOLDFAST_SERVE_MAX_QUEUE="many")


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_what_is_of_no_use_with_vllm_is_refused_however_it_is_given(given: str) -> None:
    if given == "argument":
        said = refusal("--engine", "vllm", "--max-num-seqs", "3")
    else:
        said = refusal("--engine", "vllm", HOLDFAST_SERVE_MAX_NUM_SEQS="3")
    assert "--max-num-seqs is the CPU engine's" in said


def test_triton_is_not_put_to_sleep() -> None:
    assert "Triton cannot sleep" in refusal("--engine", "triton", "--model", "/", "--sleep-after", "5")
