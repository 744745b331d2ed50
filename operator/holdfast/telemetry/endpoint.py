"""Where spans go, and what they say of their sender: the two settings that every process shares. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

DEFAULT_PORT = 4318
"""OTLP over HTTP, as OpenTelemetry's specification has it."""
TRACES_PATH = "/v1/traces"


@dataclass(frozen=True)
class Endpoint:
    """A collector that takes OTLP over HTTP without TLS."""

    host: str
    port: int
    path: str
    """Where it takes spans."""

    @property
    def url(self) -> str:
        """The whole URL for spans."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.path}"


def parse_endpoint(text: str) -> Endpoint:
    """`http://HOST[:PORT][/PREFIX]`, as OTEL_EXPORTER_OTLP_ENDPOINT has it. Raises ValueError with what to do."""
    try:
        url = urlsplit(text)
        port = url.port or DEFAULT_PORT
    except ValueError as error:
        raise ValueError(f"{text!r} is no URL: {error}") from None
    if url.scheme == "https":
        raise ValueError(
            f"{text!r}: spans are sent without TLS. Give a collector in this cluster or on this node; it can send them "
            "on with TLS and credentials."
        )
    if url.scheme != "http" or not url.hostname or url.username or url.query or url.fragment:
        raise ValueError(f"{text!r} is not of the form http://HOST:PORT, such as http://otel-collector:4318")
    return Endpoint(url.hostname, port, url.path.rstrip("/") + TRACES_PATH)


def parse_attributes(text: str) -> dict[str, str]:
    """`key=value,key=value` with values in percent-encoding, as OTEL_RESOURCE_ATTRIBUTES has it; what is not of that
    form is left out, as OpenTelemetry's own libraries do."""
    pairs = (part.partition("=") for part in text.split(","))
    return {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}
