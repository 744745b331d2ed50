"""The few requests the testbed itself sends to a region's API server, over plain HTTPS.

Readiness must be asked dozens of times while several API servers start on few cores; the full client library costs
more to import than all these requests together.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]


class KubeApi:
    """A region's API server, spoken to with the credentials of a kubeconfig; OSError when it does not answer."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._server: str = cluster["server"]
        self._token: str = user["token"]
        handler = urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=authority))
        # No proxy of the environment may be asked for an address that exists on this machine only.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)

    def get(self, path: str, timeout: float = 2.0) -> Json:
        """Read an object."""
        answer: Json = json.loads(self._send("GET", path, None, timeout))
        return answer

    def ready(self, timeout: float = 2.0) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self._send("GET", "/readyz", None, timeout) == b"ok"
        except OSError:
            return False

    def patch(self, path: str, patch: Json, timeout: float = 5.0) -> None:
        """Apply a merge patch."""
        self._send("PATCH", path, json.dumps(patch).encode(), timeout)

    def _send(self, method: str, path: str, body: bytes | None, timeout: float) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        request = urllib.request.Request(self._server + path, data=body, headers=headers, method=method)
        with self._opener.open(request, timeout=timeout) as answer:
            content: bytes = answer.read()
        return content


def wait_until(condition: Callable[[], bool], timeout: float, pause: float = 0.2) -> bool:
    """Ask until the condition holds or the time (seconds) is over; whether it held."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
