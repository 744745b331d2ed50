"""TLS: mutual between gateways, where both sides show a certificate of one private authority; plain at the client port.

Certificates are read through Envoy's secret discovery: a renewed Secret takes effect without a restart.
"""

from __future__ import annotations

from holdfast_gateway.options import PeerTls
from holdfast_gateway.render.endpoints import PLAIN_MATCH
from holdfast_gateway.render.values import Document, file_source, typed

CERTIFICATE = "sds-certificate.yaml"
AUTHORITY = "sds-authority.yaml"
FRONT = "sds-front.yaml"
SECRET = "extensions.transport_sockets.tls.v3.Secret"


def secrets(source: str) -> dict[str, list[Document]]:
    """File name → secrets; `source` is a folder with `tls.crt`, `tls.key`, `ca.crt`, such as a mounted Secret."""
    authority = {"trusted_ca": {"filename": f"{source}/ca.crt"}, "watched_directory": {"path": source}}
    return {
        CERTIFICATE: [typed(SECRET, name="certificate", tls_certificate=certificate(source))],
        AUTHORITY: [typed(SECRET, name="authority", validation_context=authority)],
    }


def front_secret(source: str) -> list[Document]:
    """What `FRONT` holds; `source` is a folder with `tls.crt` and `tls.key`."""
    return [typed(SECRET, name="front", tls_certificate=certificate(source))]


def certificate(source: str) -> Document:
    """A certificate with its key, read again when the folder changes as a mounted Secret does."""
    return {
        "certificate_chain": {"filename": f"{source}/tls.crt"},
        "private_key": {"filename": f"{source}/tls.key"},
        "watched_directory": {"path": source},
    }


def client_port(directory: str) -> Document:
    """For a listener, without certificates of clients; HTTP/2 and HTTP/1.1. `directory` holds Envoy's files."""
    common = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [{"name": "front", "sds_config": file_source(f"{directory}/{FRONT}")}],
    }
    context = typed("extensions.transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context=common)
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def guarded(listener: Document, mode: PeerTls, directory: str) -> Document:
    """The listener for peers: whoever comes by TLS shows a certificate. `directory` holds Envoy's files."""
    (plain,) = listener["filter_chains"]
    by_tls = plain | {"transport_socket": socket("DownstreamTlsContext", directory, require_client_certificate=True)}
    if mode is PeerTls.REQUIRED:
        return listener | {"filter_chains": [by_tls]}
    inspector = typed("extensions.filters.listener.tls_inspector.v3.TlsInspector")
    chains = {"tls": by_tls, "raw_buffer": plain}
    return listener | {
        "listener_filters": [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}],
        "filter_chains": [
            {"name": kind, "filter_chain_match": {"transport_protocol": kind}, **made} for kind, made in chains.items()
        ],
    }


def to_peers(directory: str) -> Document:
    """For a cluster."""
    return socket("UpstreamTlsContext", directory)


def to_stream(directory: str) -> list[Document]:
    """For a cluster in which the relay is spoken to in plain, and peers are not."""
    plain = {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": typed("extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
    }
    return [
        {"name": "relay", "match": PLAIN_MATCH, "transport_socket": plain},
        {"name": "peers", "match": {}, "transport_socket": to_peers(directory)},
    ]


def socket(message: str, directory: str, **fields: bool) -> Document:
    """A transport socket."""
    common = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [
            {"name": "certificate", "sds_config": file_source(f"{directory}/{CERTIFICATE}")}
        ],
        "validation_context_sds_secret_config": {
            "name": "authority",
            "sds_config": file_source(f"{directory}/{AUTHORITY}"),
        },
    }
    context = typed(f"extensions.transport_sockets.tls.v3.{message}", common_tls_context=common, **fields)
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
