"""The heart of the relay: what a client gets of an answer that several engines give one after the other. Pure.

Text goes to the client only together with all the token ids that it came from, at points where no stop string may have
begun. So what was sent is, at any moment, exactly the text of the ids in `committed`, and a fresh engine that is given
the prompt's ids and these continues it: nothing is lost, nothing comes twice, and no stop string lies across the seam.
What the dead engine had generated beyond that is generated anew, and never counted.

Chunks whose ids have no text yet (a character that is not complete) wait for the text; so do chunks of an engine that
does not hold back text itself where a stop string may have begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast_gateway.relay import chunks, stops
from holdfast_gateway.relay.asked import Asked
from holdfast_gateway.relay.chunks import Chunk, Frame
from holdfast_gateway.relay.events import DONE, DONE_EVENT, Event, Json, event
from holdfast_gateway.relay.failure import Reason, UpstreamFailure

NO_IDS = "the engine tells no token ids"


@dataclass(frozen=True)
class Taken:
    """What became of one event."""

    out: bytes = b""
    """What the client gets now; empty while text is held."""
    tokens: int = 0
    """How many more tokens the client has got."""
    progress: bool = False
    """Whether the engine showed that it generates."""
    complete: bool = False
    """Whether the client has all of its answer: the engine need not go on."""


@dataclass(frozen=True)
class Again:
    """Nothing was sent: the request can be made anew as it was."""


@dataclass(frozen=True)
class GoOn:
    """Another engine can continue from these token ids."""

    token_ids: list[int]
    generated: int
    room: int | None
    """Tokens left to generate, at least 1; None: what the context leaves."""


@dataclass(frozen=True)
class Close:
    """All that matters had come: with this the answer is complete."""

    out: bytes


@dataclass(frozen=True)
class Stuck:
    """The stream cannot be continued, for this reason."""

    why: str


Step = Again | GoOn | Close | Stuck


class Continuation:
    """One client's answer. Give it each event of the engine in turn; when that is lost, ask for the `next_step`."""

    def __init__(self, asked: Asked) -> None:
        self.obstacle = asked.obstacle
        """Why the stream cannot be continued; None: it can."""
        self.begun = False
        """Whether the client got anything."""
        self.committed: list[int] = []
        """The ids of all tokens that the client got."""
        self._asked = asked
        self._frame: Frame | None = None
        self._prompt_ids: list[int] | None = None
        self._held: list[Chunk] = []
        self._base: int | None = None
        """Tokens that earlier engines generated; None with the first engine, whose chunks are passed on."""
        self._finished = False
        self._usage_sent = False
        self._told: tuple[int | None, int | None] = None, None
        """What the engine said of its tokens last, where that cannot be counted."""

    @property
    def usage(self) -> tuple[int | None, int | None]:
        """Tokens of the prompt, and of those generated the ones that the client got; None: not known."""
        if self.obstacle is None and self._prompt_ids is not None:
            return len(self._prompt_ids), len(self.committed)
        return self._told

    @property
    def held_bytes(self) -> int:
        """Size of the text that is held back."""
        return sum(len(chunk.text) for chunk in self._held)

    def take(self, came: Event) -> Taken:
        """Takes the engine's next event; raises UpstreamFailure if it shows that the engine will not finish."""
        if self._asked.obstacle is not None:
            return self._pass_through(came)
        if came.data is None:
            return Taken()
        if came.data == DONE:
            if not self._finished:
                raise UpstreamFailure(Reason.ENDED, "the answer ended without a finish reason")
            return Taken(self._ending(), complete=True)
        chunk = chunks.parse(came.data)
        if self._frame is None:
            self._frame = Frame.of(chunk, self._asked.chat)
        if chunk.choice is None:
            return self._send(self._with_usage(self._reframed(chunk)))
        if self._prompt_ids is None:
            self._prompt_ids = chunk.prompt_ids
        self._object_to(chunk)
        if self.obstacle is not None:
            return self._pass_on(chunk)
        return self._hold(chunk)

    def next_step(self) -> Step:
        """What to do now that the engine is lost; what it had sent and the client has not got is forgotten."""
        self._held.clear()
        if self._finished:
            return Close(self._ending())
        if not self.begun:
            self.obstacle, self._frame, self._prompt_ids = self._asked.obstacle, None, None
            return Again()
        if self.obstacle is not None or self._prompt_ids is None or self._frame is None:
            return Stuck(self.obstacle or NO_IDS)
        room = None if self._asked.limit is None else self._asked.limit - len(self.committed)
        if room is not None and room <= 0:
            return Close(self.ending("length"))
        return GoOn(self._prompt_ids + self.committed, len(self.committed), room)

    def continued(self) -> None:
        """From now on, events are those of a completion of the ids that `next_step` gave."""
        self._base = len(self.committed)

    def ending(self, reason: str) -> bytes:
        """Completes the answer in the engine's stead."""
        assert self._frame is not None
        self._finished = True
        return event(self._frame.ending(reason)) + self._ending()

    def _ending(self) -> bytes:
        """What follows the finish reason, as far as it is missing."""
        usage = b""
        if self._asked.wants_usage and not self._usage_sent and self.obstacle is None and self._frame is not None:
            prompt, generated = len(self._prompt_ids or []), len(self.committed)
            used = {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}
            self._usage_sent = True
            usage = event(self._frame.chunk([], used))
        return usage + DONE_EVENT

    def _object_to(self, chunk: Chunk) -> None:
        """Notes what shows that the stream cannot be continued."""
        if self.obstacle is not None:
            return
        if (name := chunk.beside_text) is not None:
            self.obstacle = f"the engine makes {name} of its text"
        elif self._prompt_ids is None or (chunk.text and not chunk.ids and chunk.reason is None):
            self.obstacle = NO_IDS

    def _pass_through(self, came: Event) -> Taken:
        """An event of a stream that was never to be continued, whatever it is; an engine's own error is an end."""
        self.begun = True
        self._told = chunks.usage(came.data) or self._told
        ends = came.data == DONE or (came.data is not None and chunks.is_error(came.data))
        return Taken(came.raw, progress=came.data is not None, complete=ends)

    def _pass_on(self, chunk: Chunk) -> Taken:
        """A chunk of a stream that turned out not to be one that can be continued."""
        held, self._held = self._held, []
        self._told = chunks.counted(chunk.content) or self._told
        self._finished = self._finished or chunk.reason is not None
        return self._send(*(self._with_usage(self._reframed(each)) for each in (*held, chunk)))

    def _hold(self, chunk: Chunk) -> Taken:
        self._held.append(chunk)
        text = "".join(each.text for each in self._held)
        if (found := stops.find(text, self._asked.stops)) is not None:
            return self._cut(*found)
        incomplete = bool(chunk.ids) and not chunk.text
        if chunk.reason is None and (incomplete or stops.may_have_begun(text, self._asked.stops)):
            return Taken(progress=True)
        self._finished = chunk.reason is not None
        return self._release([self._with_usage(self._reframed(each)) for each in self._held])

    def _cut(self, at: int, stop: str) -> Taken:
        """A stop string is complete in the text that is held: the answer ends before it."""
        last = self._held[-1]
        out = []
        for chunk in self._held:
            text, at = chunk.text[:at], max(0, at - len(chunk.text))
            out.append(chunks.with_text(self._with_usage(self._reframed(chunk)), text))
        out[-1] = chunks.with_reason(out[-1], "stop")
        if "stop_reason" in out[-1]["choices"][0]:
            out[-1]["choices"][0]["stop_reason"] = stop
        self._finished = True
        taken = self._release(out)
        if last.reason is not None:
            return taken  # the engine saw it as well, and will tell the usage
        return Taken(taken.out + self._ending(), taken.tokens, progress=True, complete=True)

    def _release(self, out: list[Json]) -> Taken:
        ids = [token for chunk in self._held for token in chunk.ids]
        self._held.clear()
        self.committed += ids
        sent = self._send(*out)
        return Taken(sent.out, len(ids), progress=True)

    def _send(self, *contents: Json) -> Taken:
        self.begun = True
        if not self._asked.wants_ids:
            contents = tuple(chunks.without_ids(content) for content in contents)
        return Taken(b"".join(event(content) for content in contents), progress=True)

    def _reframed(self, chunk: Chunk) -> Json:
        if self._base is None or self._frame is None:
            return chunk.content
        return self._frame.continued(chunk)

    def _with_usage(self, content: Json) -> Json:
        """A chunk's usage as that of the whole answer."""
        used: Any = content.get("usage")
        if not isinstance(used, dict):
            return content
        if not content["choices"]:
            self._usage_sent = True
        if self._base is None:
            return content
        prompt = len(self._prompt_ids or [])
        told = used.get("completion_tokens")
        generated = self._base + (told if isinstance(told, int) else 0)
        counted = {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}
        return {**content, "usage": {**used, **counted}}
