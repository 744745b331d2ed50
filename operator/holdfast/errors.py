"""Every error that the operator raises itself, as one tree.

HoldfastError
├── ConfigError        the process was started with settings that cannot work; it exits with the sentence
└── ClusterError       an API server answered with an error, or not at all; tried again later
    ├── Conflict       somebody else changed or owns what was to be written
    ├── NotFound       the object, or its kind, is not there
    ├── Rejected       the API server refuses the object as it is; trying the same again is of no use
    └── Unreachable    no answer, or one that says "not now"
"""

from __future__ import annotations


class HoldfastError(Exception):
    """Base of all errors of the operator; its text is one sentence for a person."""


class ConfigError(HoldfastError):
    """A setting of the process is missing or wrong."""


class ClusterError(HoldfastError):
    """A request to an API server failed."""


class Conflict(ClusterError):
    """The object changed since it was read, or another manager owns a field (HTTP 409)."""


class NotFound(ClusterError):
    """The object or its kind does not exist (HTTP 404)."""


class Rejected(ClusterError):
    """The API server refuses the request as it is (HTTP 400, 403, 413, 422)."""


class Unreachable(ClusterError):
    """The API server did not answer in time, or says that it cannot now (HTTP 429, 5xx)."""
