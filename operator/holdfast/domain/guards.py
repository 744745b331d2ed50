"""The rules that keep regions from contradicting each other, by name, so that a test can show what each is for.

Production always runs with all of them. The safety simulation leaves one out and must then find a schedule of
failures that breaks a promise.
"""

from __future__ import annotations

from enum import StrEnum


class Guard(StrEnum):
    """One rule."""

    MAJORITY = "majority"
    """A leader holds the Leases of more than half of the voters."""
    LEASE_PATIENCE = "lease-patience"
    """A Lease is taken only after it was seen unchanged for its whole duration, by the own clock."""
    RENEW_DEADLINE = "renew-deadline"
    """A leader that could not renew stops writing before its Leases can be taken."""
    EPOCH_GROWS = "epoch-grows"
    """A new leadership's epoch is larger than any that its majority has seen."""
    SEAL = "seal"
    """A plan of a smaller epoch than its region is sealed with is refused."""
    COMPARE_AND_SWAP = "compare-and-swap"
    """A write names the version that was read, and fails if it changed since."""
    TOMBSTONES_WIN = "tombstones-win"
    """A copy of a service that was deleted is deleted wherever it turns up."""
    DRAIN_CAP = "drain-cap"
    """At most `maxDrainedFraction` of a service's regions is drained."""
    UNKNOWN_STAYS = "unknown-stays"
    """Only a majority that sees a region fail moves its traffic."""
    LAST_REGION_STAYS = "last-region-stays"
    """The last region that has traffic keeps it."""


ALL_GUARDS = frozenset(Guard)
