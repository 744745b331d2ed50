"""What a request may ask for."""

from __future__ import annotations

import pytest

from holdfast_engine.errors import InvalidRequestError
from holdfast_engine.limits import Limits, check_logprobs
from holdfast_engine.port import Loaded, Sampling


@pytest.mark.parametrize(
    ("limit", "wanted", "bounded"),
    [(None, None, None), (None, 9, 9), (8, None, 8), (8, 8, 8), (8, 3, 3)],
)
def test_output_is_bounded(limit: int | None, wanted: int | None, bounded: int | None) -> None:
    assert Limits(output_tokens=limit).bounded(Sampling(max_tokens=wanted)).max_tokens == bounded


def test_more_output_than_allowed_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match=r"At most 8 tokens .* 9 were requested") as refused:
        Limits(output_tokens=8).bounded(Sampling(max_tokens=9))
    assert (refused.value.param, refused.value.code) == ("max_tokens", "output_too_long")


def test_a_prompt_that_is_too_long_is_told_so() -> None:
    limits = Limits(prompt_tokens=4)
    assert limits.refusal_of_prompt(4) is None
    assert "at most 4 tokens; this one has 5" in str(limits.refusal_of_prompt(5))
    assert Limits().refusal_of_prompt(10**9) is None


@pytest.mark.parametrize(("most", "wanted"), [(None, None), (0, None), (0, 0), (5, 5)])
def test_log_probabilities_that_the_engine_tells(most: int | None, wanted: int | None) -> None:
    check_logprobs(Sampling(logprobs=wanted), Loaded(9, top_logprobs=most))


@pytest.mark.parametrize(
    ("most", "wanted", "message"),
    [(None, 0, "tells no log"), (0, 1, "the generated tokens' log probabilities alone"), (5, 6, "at most 5")],
)
def test_log_probabilities_that_it_does_not_tell(most: int | None, wanted: int, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        check_logprobs(Sampling(logprobs=wanted), Loaded(9, top_logprobs=most))
