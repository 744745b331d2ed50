"""Log lines: text for people, or JSON, a line each, with the request that they belong to.

What libraries would tell at their most talkative is held back where it may hold secrets or prompts.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
HELD_BACK = {
    # At DEBUG some of its clients print the bodies of answers: Secrets with tenants' keys, kubeconfigs.
    "kubernetes": logging.INFO,
    "urllib3": logging.INFO,
    # Says for each batch of spans that it was not taken; `export.py` says so once.
    "opentelemetry": logging.CRITICAL,
}
"""Logger → the least level that it may tell."""

_request: ContextVar[Mapping[str, str] | None] = ContextVar("holdfast_request", default=None)


class LogFormat(StrEnum):
    """How lines look."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """A JSON object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`; of a request `request_id`, `service`,
    `trace_id`, `span_id`; where there is one, `exception`, or the `object` that kopf works on."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_request.get() or {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if (named := getattr(record, "k8s_ref", None)) is not None:
            parts = (named.get("namespace"), named.get("name"))
            fields["object"] = "/".join(part for part in parts if part)
        return json.dumps(fields, ensure_ascii=False, default=str)


def set_up(form: str, level: int | str = logging.INFO, text: str = TEXT_FORMAT) -> None:
    """From now on this process logs to standard error in this form; `text` is the format of lines for people."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == LogFormat.JSON else logging.Formatter(text))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, least in HELD_BACK.items():
        logging.getLogger(name).setLevel(max(least, logging.getLogger().level))


def belong_to(headers: Mapping[str, str], **fields: str) -> None:
    """From now on this task's lines are those of a request with these headers (lower-case names); `fields` replace what
    the headers say."""
    found = {"request_id": headers.get("x-request-id", ""), **trace_of(headers.get("traceparent", "")), **fields}
    _request.set({name: value for name, value in found.items() if value})


def trace_of(traceparent: str) -> dict[str, str]:
    """Trace and span of a `traceparent`; empty for what is none."""
    parts = traceparent.split("-")
    if len(parts) < 4 or (len(parts[1]), len(parts[2])) != (32, 16):
        return {}
    return {"trace_id": parts[1], "span_id": parts[2]}
