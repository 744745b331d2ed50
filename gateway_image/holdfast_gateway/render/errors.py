"""Errors in the form that OpenAI's clients understand: of routes that answer themselves, and Envoy's own."""

from __future__ import annotations

import json

from holdfast_gateway.render.values import Document

OWN_ERRORS = {
    408: ("invalid_request_error", "request_timeout"),
    413: ("invalid_request_error", "request_too_large"),
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "timeout"),
}
"""Status codes that Envoy itself produces → OpenAI's error type and code."""

MESSAGES = {
    408: "The request did not arrive in time.",
    413: "The request body is too large for this gateway.",
    502: "The engine's answer could not be read.",
    503: "No region could serve this request. Try again.",
    504: "The answer took longer than this service allows.",
}


def error_body(message: str, kind: str, code: str) -> str:
    """The JSON body of an error."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def local_replies() -> Document:
    """Gives Envoy's own errors a JSON body; says nothing about hosts, which Envoy's texts do."""
    return {"mappers": [mapper(status) for status in OWN_ERRORS]}


def mapper(status: int) -> Document:
    """The rewriting of one status code."""
    kind, code = OWN_ERRORS[status]
    return {
        "filter": {
            "status_code_filter": {
                "comparison": {
                    "op": "EQ",
                    "value": {"default_value": status, "runtime_key": f"holdfast.{status}"},
                }
            }
        },
        "body": {"inline_string": error_body(MESSAGES[status], kind, code) + "\n"},
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }
