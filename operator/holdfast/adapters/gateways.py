"""Asks regions' gateways at their peer ports: in plain, or by TLS with a certificate, as gateways ask each other."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from holdfast.api.region import RegionSpec
from holdfast.errors import ConfigError

log = logging.getLogger(__name__)

AUTHORITY, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
"""Files of a Secret as cert-manager makes it."""
KEEP_SECONDS = 30.0
"""How long a connection is kept for the next question."""


class Gateways:
    """A client of all peer ports; use it as a context manager.

    With a folder of certificates it speaks TLS 1.3 and trusts that authority alone, whatever name a gateway's
    certificate is for, as gateways do. Raises ConfigError if they cannot be used.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._stamp = _stamp(folder) if folder else ()
        self._tls = _context(folder) if folder else None

    async def __aenter__(self) -> Gateways:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_SECONDS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def renew(self) -> None:
        """Takes a certificate that was changed, for new connections; one that cannot be used is logged and left."""
        if self._folder is None or (stamp := _stamp(self._folder)) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tls = _context(self._folder)
            log.info("observing with the certificate that is in %s now", self._folder)
        except ConfigError as error:
            log.error("observing with the certificate of before: %s", error)

    def ask(
        self, spec: RegionSpec, path: str, *, seconds: float, headers: Mapping[str, str], body: Any = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """An answer, within `seconds`: to a GET, or to a POST of `body` as JSON. Entering it raises
        aiohttp.ClientError, OSError or TimeoutError."""
        address = spec.gateway.address
        host = f"[{address}]" if ":" in address else address
        return self._session.request(
            "GET" if body is None else "POST",
            f"{'https' if self._tls else 'http'}://{host}:{spec.gateway.peer_port}{path}",
            json=body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=seconds),
            ssl=self._tls or True,
        )


def why(error: Exception, seconds: float) -> str:
    """What came of a question that had no answer within that time, in words that stay the same while the cause does."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientConnectorError():
            return str(error.os_error)
    return str(error) or f"nothing within {seconds:g} s"


def _context(folder: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    try:
        made.load_verify_locations(folder / AUTHORITY)
        made.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    except OSError as error:  # those of TLS among them
        raise ConfigError(
            f"The certificates in {folder} cannot be used: {error}. It must hold {CERTIFICATE}, {KEY} and {AUTHORITY}."
        ) from error
    return made


def _stamp(folder: Path) -> tuple[tuple[int, int] | None, ...]:
    """Another one whenever one of the files was changed or put in another's place."""

    def of(path: Path) -> tuple[int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    return tuple(of(folder / name) for name in (AUTHORITY, CERTIFICATE, KEY))
