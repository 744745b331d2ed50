"""What the person who deploys a gateway chooses: role, ports and timing. All defaults live here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdfast.api.names import GATEWAY_PORT, NAMESPACE, PEER_PORT


class Role(StrEnum):
    """Where a gateway stands."""

    REGIONAL = "regional"
    """In a region, beside its engines; answers clients and the other regions' gateways."""
    EDGE = "edge"
    """In front of all regions; knows their gateways and no engine."""


class Auth(StrEnum):
    """Who may use the client port."""

    NONE = "None"
    """Everybody."""
    REQUIRED = "Required"
    """Tenants."""


class PeerTls(StrEnum):
    """What a gateway with certificates makes of them. Neighbours in this list understand each other, and the first also
    understands gateways without certificates: so a fleet turns to TLS step by step."""

    ACCEPTED = "Accepted"
    """Peers may come by TLS or in plain; it asks them in plain."""
    PREFERRED = "Preferred"
    """Peers may come by TLS or in plain; it asks them by TLS."""
    REQUIRED = "Required"
    """By TLS only."""


@dataclass(frozen=True)
class Options:
    """Settings of one gateway. Times are in seconds, sizes in bytes."""

    role: Role
    listen: str = "0.0.0.0"
    """Address that the client, peer and metrics ports bind to."""
    client_port: int = GATEWAY_PORT
    peer_port: int = PEER_PORT
    metrics_port: int = 9902
    admin_port: int = 9901
    """Envoy's admin interface; always on 127.0.0.1."""
    status_port: int = 0
    """The agent's `/healthz` and `/metrics`, and what peers are told of the traffic; 0 for none."""
    relay_port: int = 0
    """The stream relay's port, at `own_address`; 0: there is no relay, and streams go to the regions directly."""
    outbound_port: int = 9905
    """Envoy's port for the relay, at `own_address`."""
    keepalive_interval: float = 0.25
    """Pause between two HTTP/2 pings on a connection to an engine or a peer."""
    keepalive_timeout: float = 0.75
    """A connection that sends no frame for this long after a ping is closed; its requests are retried."""
    connect_timeout: float = 0.5
    health_interval: float = 0.25
    unused_interval: float = 5.0
    """Between two checks of a host in a cluster that has had no request so far."""
    health_timeout: float = 2.0
    """Patient, as a busy engine may answer late; what is dead or frozen is found by connections and pings."""
    unhealthy_after: int = 2
    """Failed checks in a row after which a host gets no more traffic."""
    max_body: int = 4 * 1024 * 1024
    """The largest request body; a larger one is answered 413."""
    max_connections: int = 50_000
    """Connections of clients at once; more are closed as they come. Peers and probes are not counted."""
    peer_tls: str = ""
    """Folder with `tls.crt`, `tls.key` and `ca.crt` for mutual TLS between gateways; empty for none."""
    peer_tls_mode: PeerTls = PeerTls.REQUIRED
    client_tls: str = ""
    """Folder with `tls.crt` and `tls.key` for the client port, as cert-manager's Secrets hold them; empty for none."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask from browsers, such as `https://chat.example.com`; `*` for all."""
    auth: Auth = Auth.NONE
    tenant_namespace: str = NAMESPACE
    """Where the Secrets of tenants are."""
    requests_per_minute: int = 0
    """Of each tenant that has no limit of its own; 0 for no limit."""
    burst: int = 0
    """Requests of such a tenant that may come at once; 0 for as many as in a minute."""
    tokens_per_minute: int = 0
    """Prompts and answers together, of a tenant without a limit of its own; 0: none. Needs `limits` and `ledger`."""
    ledger: str = ""
    """Folder where one record of each request of a client is spooled; empty for none."""
    ledger_content: int = 0
    """How many bytes of each request's body and of its answer are in its record; 0: none."""
    limits: str = ""
    """HOST:PORT of the rate limit service that counts for all gateways; empty: each gateway counts for itself."""
    limits_timeout: float = 0.05
    """How long a request may wait for it; then it passes."""
    access_log: bool = False
    """Whether every request is logged to stdout as one JSON line."""
    otlp_endpoint: str = ""
    """Where spans are sent, `http://HOST:PORT`; empty for nowhere, and then clients' `traceparent` passes untouched."""
    trace_sampling: float = 1.0
    """Percent of the requests without a `traceparent` that are traced."""
    resource_attributes: str = ""
    """What all spans of this gateway say, `key=value,key=value`."""

    @property
    def asks_by_tls(self) -> bool:
        """Whether it speaks TLS to peers."""
        return bool(self.peer_tls) and self.peer_tls_mode is not PeerTls.ACCEPTED

    @property
    def own_address(self) -> str:
        """Where this gateway reaches itself: its own peer port, its relay."""
        return "127.0.0.1" if self.listen == "0.0.0.0" else self.listen
