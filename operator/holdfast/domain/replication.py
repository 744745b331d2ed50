"""How the copies of a service come to be the same in every region, and how a deleted one stays deleted.

Every operator brings its own region's copy to the latest edit that it sees anywhere: a region needs no right to write
into another. A deletion leaves a tombstone, which says up to which incarnation copies die; tombstones travel the same
way, and go once every region has been seen to list them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.api.conditions import Reason
from holdfast.api.region import Tombstone
from holdfast.domain.copies import Copy, Stamp, Version, built_upon, stamp_for
from holdfast.domain.guards import ALL_GUARDS, Guard


@dataclass(frozen=True)
class Held:
    """What one region holds of a service, as far as it can be seen."""

    current: bool
    """Whether this is known to be the present state."""
    copy: Copy | None = None
    tombstone: Tombstone | None = None
    refused: str = ""
    """Why its API server does not take the latest edit, where it does not."""


@dataclass(frozen=True)
class Copies:
    """One service in every region, as one operator sees it."""

    service: str
    """`namespace/name`."""
    region: str
    """The region of the operator that looks."""
    own: Held
    peers: Mapping[str, Held] = field(default_factory=dict)
    """Every other region; one that was not read yet is there as well, and not current."""

    @property
    def everywhere(self) -> dict[str, Held]:
        """What every region holds, by its name, the own one included."""
        return {self.region: self.own, **self.peers}


@dataclass(frozen=True)
class Bring:
    """Write the own copy: the spec of `source`, with this stamp."""

    source: Copy
    stamp: Stamp
    lost: Copy | None = None
    """The own edit that this replaces although nobody has built upon it."""


@dataclass(frozen=True)
class Renew:
    """Write a new stamp only: of a new incarnation where the own copy was made under the name of a deleted service."""

    stamp: Stamp


@dataclass(frozen=True)
class Remove:
    """Delete the own copy: the service was deleted elsewhere."""

    lost: Copy


Step = Bring | Renew | Remove


def next_step(seen: Copies, guards: frozenset[Guard] = ALL_GUARDS) -> Step | None:
    """What the operator must do to its own region's copy, if anything."""
    own, best, buried = seen.own.copy, latest(seen), last_buried(seen)
    if own and own.deleting:
        return None
    if own and own.version.incarnation <= buried and made_anew(seen.own):
        return Renew(_reincarnated(own, buried + 1))
    if best is None:
        return None
    if best.version.incarnation <= buried and Guard.TOMBSTONES_WIN in guards:
        return Remove(own) if own else None
    if own is None:
        return Bring(best, stamp_for(best, generation=1))
    if best.version <= own.version:
        return Renew(stamp_for(own, own.generation)) if own.stamped_ahead else None
    same = best.spec == own.spec
    lost = own if own.edited_here and not built_upon(own, best) else None
    return Bring(best, stamp_for(best, own.generation + (0 if same else 1), own), lost)


def made_anew(own: Held) -> bool:
    """Whether the own copy was made after its region had listed the deletion of an earlier one.

    One that was marked as a new incarnation since can be deleted like any other.
    """
    if own.copy is None or own.tombstone is None:
        return False
    return own.tombstone.uid != own.copy.uid and own.copy.version.incarnation <= own.tombstone.incarnation


def _reincarnated(own: Copy, incarnation: int) -> Stamp:
    return Stamp(
        incarnation=incarnation,
        number=1,
        generation=own.generation,
        digest=own.version.digest,
        origin=own.region,
    )


def latest(seen: Copies) -> Copy | None:
    """The copy with the latest edit of all that can be seen and are not about to go.

    Of equal ones that which knows most of what came before.
    """
    alive = [each.copy for each in seen.everywhere.values() if each.copy and not each.copy.deleting]
    return max(alive, key=lambda copy: (copy.version, len(copy.history), copy.region), default=None)


def last_buried(seen: Copies) -> int:
    """The last incarnation that was deleted, as far as can be seen; -1 if none was."""
    return max((each.tombstone.incarnation for each in seen.everywhere.values() if each.tombstone), default=-1)


def holders(seen: Copies, version: Version) -> tuple[str, ...]:
    """The regions that are seen to hold this edit now."""
    return tuple(
        sorted(
            name
            for name, each in seen.everywhere.items()
            if each.current and each.copy and not each.copy.deleting and each.copy.version == version
        )
    )


def tombstone_of(service: str, own: Copy, seen: Copies) -> Tombstone:
    """What the own region must list before its copy may go."""
    return Tombstone(service=service, incarnation=max(own.version.incarnation, last_buried(seen)), uid=own.uid)


def next_tombstone(seen: Copies) -> Tombstone | None:
    """What the own region lists for this service from now on, if anything.

    Listed first, confirmed once all list it, forgotten once all have confirmed or forgotten. A confirmed entry
    proves that every region has listed it, so one that has none has forgotten it already.
    """
    own, buried = seen.own.tombstone, last_buried(seen)
    if buried < 0 or _lives_again(seen, buried):
        return None
    if seen.own.copy:
        return own  # the copy's going lists it
    others = [each.tombstone for each in seen.peers.values()]
    if own is None or own.incarnation < buried:
        unconfirmed = any(each and each.incarnation == buried and not each.confirmed for each in others)
        return Tombstone(service=seen.service, incarnation=buried) if unconfirmed or own else None
    agree = all(each.current and each.copy is None for each in seen.peers.values())
    if not own.confirmed:
        proven = any(each and each.incarnation == own.incarnation and each.confirmed for each in others)
        listed = agree and all(each and each.incarnation == own.incarnation for each in others)
        return own.model_copy(update={"confirmed": True}) if proven or listed else own
    return None if agree and all(each is None or each.confirmed for each in others) else own


def _lives_again(seen: Copies, buried: int) -> bool:
    """Whether somebody made the service again since."""
    copies = [each.copy for each in seen.everywhere.values() if each.copy and not each.copy.deleting]
    return any(copy.version.incarnation > buried for copy in copies)


def explain(step: Step) -> tuple[Reason, str] | None:
    """Why an edit of this region is lost, for an event; None where none is."""
    if isinstance(step, Remove):
        return (
            Reason.DELETED_ELSEWHERE,
            f"The service was deleted in another region, so its edit {step.lost.version.number} goes here as well.",
        )
    if isinstance(step, Renew) or step.lost is None:
        return None
    lost, winner = step.lost.version, step.source.version
    return (
        Reason.EDIT_REPLACED,
        f"Edit {lost.number} made here was replaced by edit {winner.number} made in {step.source.origin}, which had "
        "not seen it. The later incarnation wins, then the higher number, then the greater digest "
        f"({winner.digest} against {lost.digest}). Apply it again if it is still wanted.",
    )
