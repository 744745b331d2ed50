"""Where spans go, as people write it."""

from __future__ import annotations

import pytest

from holdfast.telemetry.endpoint import parse_attributes, parse_endpoint


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://otel:4318", "http://otel:4318/v1/traces"),
        ("http://otel", "http://otel:4318/v1/traces"),
        ("http://10.0.0.1:9999/tenant/a/", "http://10.0.0.1:9999/tenant/a/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_an_endpoint_is_where_its_collector_takes_spans(given: str, url: str) -> None:
    assert parse_endpoint(given).url == url


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("https://otel:4318", "without TLS"),
        ("otel:4318", "such as http://otel-collector:4318"),
        ("http://user:secret@otel", "such as"),
        ("http://otel:port", "is no URL"),
        ("grpc://otel:4317", "such as"),
        ("http://", "such as"),
    ],
)
def test_an_endpoint_that_is_none_is_refused_with_what_to_do(given: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_endpoint(given)


def test_attributes_are_read_as_opentelemetry_reads_its_environment_variable() -> None:
    assert parse_attributes(" a=1, b.c=x%2Cy ,") == {"a": "1", "b.c": "x,y"}
    assert parse_attributes("") == parse_attributes("a") == {}
