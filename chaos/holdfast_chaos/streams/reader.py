"""Reads one stream's events into what its client got; bytes may come cut anywhere. Pure: the time is passed in."""

from __future__ import annotations

import json
import re
from typing import Any

from holdfast_chaos.streams.compare import Received

_RESUMED = re.compile(r": resumed from \S* ?in (?P<region>\S+)")


class EventReader:
    def __init__(self) -> None:
        self.received = Received()
        self._rest = b""

    def feed(self, data: bytes, now: float) -> None:
        """Take in the next bytes, which arrived at `now`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip()
            if text == "data: [DONE]":
                self.received.done = True
            elif text.startswith("data:"):
                self._event(json.loads(text[5:]), now)
            elif resumed := _RESUMED.match(text):
                self.received.resumed_after.append(len(self.received.token_times))
                self.received.regions.append(resumed["region"])

    def _event(self, content: dict[str, Any], now: float) -> None:
        got = self.received
        if "error" in content:
            got.error = f"error event: {content['error'].get('code')}: {content['error'].get('message')}"
            return
        got.ids.add(content["id"])
        if usage := content.get("usage"):
            got.completion_tokens = usage["completion_tokens"]
        for choice in content["choices"]:
            got.text += choice["text"]
            got.token_ids += choice.get("token_ids") or []
            got.reason = choice["finish_reason"] or got.reason
            if choice.get("token_ids"):
                got.token_times.append(now)
