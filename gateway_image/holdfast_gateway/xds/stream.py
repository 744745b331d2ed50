"""One Envoy's connection: what it wants, what it has, and so what it is to be sent. Pure.

Envoy's incremental protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from holdfast_gateway.xds.messages import CLUSTER, ENDPOINTS, IN_ORDER, SCOPE, WILDCARD, Resource

log = logging.getLogger(__name__)

AT_ONCE = 500
"""Resources in one message."""


@dataclass(frozen=True)
class Message:
    """What is sent at once."""

    kind: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass
class Interest:
    """One kind of resource on one connection."""

    answered: bool = False
    """Whoever asks for all waits to hear that there is nothing, too."""
    all: bool = False
    names: set[str] = field(default_factory=set)
    """Wanted by name."""
    has: dict[str, str] = field(default_factory=dict)
    """Name → version of what Envoy has."""

    def forget(self, name: str) -> None:
        """Which version of it Envoy has, if any."""
        if name in self.has:
            self.has[name] = ""


class Stream:
    """What one connection has told and was told."""

    def __init__(self) -> None:
        self._interests: dict[str, Interest] = {}

    def take(self, kind: str, subscribe: tuple[str, ...], unsubscribe: tuple[str, ...], has: Mapping[str, str]) -> None:
        """Envoy's message. `has`: versions that it holds from an earlier connection."""
        first = kind not in self._interests
        interest = self._interests.setdefault(kind, Interest())
        if first:
            interest.has.update(has)
            # By the protocol a first message without names asks for all of those that can be asked for so.
            interest.all = not subscribe and kind in (CLUSTER, SCOPE)
        for name in unsubscribe:
            interest.all = interest.all and name != WILDCARD
            interest.names.discard(name)
            interest.has.pop(name, None)
        for name in subscribe:
            if name == WILDCARD:
                interest.all = True
            else:
                interest.names.add(name)
                if name not in has:
                    interest.forget(name)  # whoever asks again is answered again

    def due(self, held: Mapping[str, Mapping[str, Resource]]) -> Iterator[Message]:
        """What has to be sent, in order: nothing is removed before what names it has changed or is gone."""
        removals = []
        for kind in IN_ORDER:
            if (interest := self._interests.get(kind)) is None:
                continue
            found = held[kind]
            names = found.keys() if interest.all else interest.names & found.keys()
            changed = [found[name] for name in names if interest.has.get(name) != found[name].version]
            removed = tuple(name for name in interest.has if name not in found)
            if kind == CLUSTER:
                self._ask_again(changed)
            if interest.all and not interest.answered and not changed:
                yield Message(kind)
            interest.answered = True
            for start in range(0, len(changed), AT_ONCE):
                some = tuple(changed[start : start + AT_ONCE])
                interest.has.update((each.name, each.version) for each in some)
                yield Message(kind, some)
            if removed:
                removals.append(Message(kind, removed=removed))
        for message in reversed(removals):
            for name in message.removed:
                self._interests[message.kind].has.pop(name, None)  # it may have been given up meanwhile
            yield message

    def _ask_again(self, changed: list[Resource]) -> None:
        """A cluster that changed is made anew, and waits for its endpoints without asking for them."""
        clusters, endpoints = self._interests[CLUSTER], self._interests.get(ENDPOINTS)
        for each in changed:
            if endpoints is not None and each.name in clusters.has:
                endpoints.forget(each.name)
