"""One stream from its request to its end: asks, reads, gives, and asks elsewhere when what it reads from is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from holdfast_gateway.relay import asked
from holdfast_gateway.relay.client import HANDLED, Client, Request
from holdfast_gateway.relay.continuation import Again, Close, Continuation, GoOn, Stuck
from holdfast_gateway.relay.events import DONE, EventReader, comment, error_event
from holdfast_gateway.relay.failure import Reason, UpstreamFailure
from holdfast_gateway.relay.metrics import Outcome, RelayMetrics
from holdfast_gateway.relay.regions import Service
from holdfast_gateway.relay.search import GivenUp, Loss, Patience, Search
from holdfast_gateway.relay.spool import Account
from holdfast_gateway.relay.tracing import StreamTrace
from holdfast_gateway.relay.upstream import NO_REVISION, Answer, Place, Upstream
from holdfast_gateway.render.values import ANY_REVISION

log = logging.getLogger(__name__)

RESUMABLE_HEADER = "x-holdfast-resumable"
REQUEST_ID = "x-request-id"


@dataclass(frozen=True)
class Attempt:
    """What is asked, and of whom."""

    path: str
    body: bytes
    place: Place


class Stream:
    """One client's stream."""

    def __init__(
        self,
        request: Request,
        key: str,
        lookup: Callable[[], Service | None],
        upstream: Upstream,
        client: Client,
        metrics: RelayMetrics,
        patience: Patience,
        account: Account,
        traced: StreamTrace,
    ) -> None:
        self._request = request
        self._key = key
        self._lookup = lookup
        self._service = lookup() or Service((), 0, 0.0)
        """As the agent told last when the stream began, or lost an engine."""
        self._upstream = upstream
        self._client = client
        self._metrics = metrics
        self._patience = patience
        self._traced = traced
        self._asked = asked.read(request.path, request.body)
        self._account = account
        self._account.model = self._asked.fields.get("model")
        traced.model(self._asked.fields.get("model"))
        self._answer = Continuation(self._asked)
        self._reader = EventReader()
        self._search = Search(patience.search)
        self._region: str | None = None
        """The region that is asked now."""
        self._revision: str | None = None
        """The revision that began the answer: no other one may continue it, as its text may be another model's."""
        self._resuming = False
        """Whether it is asked to continue, not to begin."""
        self._progressed = False
        self._at_end = False
        """Whether the engine has said all."""
        self._reading_since = 0.0
        self._resumes = 0
        self._attempts = 0
        self._token_at = time.monotonic()

    @property
    def buffered_bytes(self) -> int:
        """What waits for something else before the client gets it."""
        return self._answer.held_bytes + self._reader.waiting_bytes

    @property
    def _resumable(self) -> bool:
        """Whether another engine can continue it; a stream for which none can is never given up for its silence."""
        return self._answer.obstacle is None and self._service.max_resumes > 0 and bool(self._service.regions)

    async def run(self) -> Outcome:
        """Until the client has all that it will get."""
        keeping = asyncio.create_task(self._keep_alive())
        try:
            return await self._run()
        except GivenUp as error:
            log.warning("stream %s: %s", self._request.headers.get(REQUEST_ID, "?"), error)
            if not self._client.begun:
                await self._client.refuse(503, error.code, str(error))
                return Outcome.REFUSED
            await self._client.give(error_event(str(error), error.code), last=True)
            return Outcome.FAILED
        finally:
            keeping.cancel()

    async def _keep_alive(self) -> None:
        while not (self._client.begun and self._answer.begun):  # noqa: ASYNC110 - rarely longer than one token
            await asyncio.sleep(self._patience.keep_alive / 2)
        await self._client.keep_alive(self._patience.keep_alive)

    async def _run(self) -> Outcome:
        attempt = Attempt(self._request.target, self._asked.first_body(), Place(self._key))
        while True:
            self._attempts += 1
            self._account.attempts = self._attempts
            try:
                return await self._try(attempt)
            except UpstreamFailure as failure:
                self._note(failure)
            found = await self._next()
            if found is None:
                return self._completed()
            attempt = found

    async def _try(self, attempt: Attempt) -> Outcome:
        self._region = attempt.place.region
        self._reader = EventReader()
        headers = dict(self._request.headers)
        if self._attempts > 1 and (name := headers.get(REQUEST_ID)):
            headers[REQUEST_ID] = f"{name}-{self._attempts}"  # an engine may still hold the one before under its name
        headers |= self._traced.attempt(self._attempts, attempt.place.region)
        async with contextlib.AsyncExitStack() as stack:
            opening = self._upstream.post(attempt.path, attempt.body, headers, attempt.place)
            try:
                async with asyncio.timeout(self._first_token()):
                    answer = await stack.enter_async_context(opening)
            except TimeoutError:
                raise self._stalled() from None
            self._region = attempt.place.region or answer.region
            self._traced.answered(answer.status, self._region)
            if answer.is_stream:
                if self._resuming and self._revision is not None and answer.revision != self._revision:
                    raise UpstreamFailure(Reason.ERROR, NO_REVISION, gone=True)
                if answer.stands_in:
                    self._answer.obstacle = "another model answers"  # the service's own engines would go on as theirs
                await self._read(answer)
                return self._completed()
            if attempt.place.region is None:
                return await self._pass(answer)
            refused = 400 <= answer.status < 500 and answer.status != 429
            message = NO_REVISION if answer.gone else f"the engine answered {answer.status}"
            raise UpstreamFailure(Reason.ERROR, message, refused=refused, gone=answer.gone)

    async def _pass(self, answer: Answer) -> Outcome:
        """An answer that is no stream, as it is: all regions were asked where that could help."""
        body = await answer.whole()
        self._account.answered(self._region, answer.headers)
        handled = [(HANDLED, "true")] if answer.status != 200 else []
        await self._client.begin(answer.status, [*answer.headers, *handled])
        await self._client.give(body, last=True)
        return Outcome.COMPLETED if answer.status == 200 else Outcome.REFUSED

    async def _read(self, answer: Answer) -> None:
        """Gives on what comes until the answer is complete; raises UpstreamFailure."""
        patience = self._first_token()
        self._reading_since = asyncio.get_running_loop().time()
        while True:
            data = await self._within(answer, patience)
            if not data:
                raise UpstreamFailure(Reason.ENDED, "the stream ended too early")
            if await self._take(data, answer):
                if self._at_end:
                    await answer.drain()
                return
            if self._progressed:
                patience = self._service.progress_timeout if self._resumable else None

    async def _within(self, answer: Answer, patience: float | None) -> bytes:
        """What comes next; `patience`: seconds since the last sign of progress, but for the client's own time."""
        if patience is None:
            return await answer.read()
        try:
            async with asyncio.timeout_at(self._reading_since + patience):
                return await answer.read()
        except TimeoutError:
            raise self._stalled() from None

    async def _take(self, data: bytes, answer: Answer) -> bool:
        """Gives on what has become certain; whether the answer is complete."""
        out, tokens, complete, self._progressed = bytearray(), 0, False, False
        try:
            for each in self._reader.feed(data):
                taken = self._answer.take(each)
                out += taken.out
                tokens += taken.tokens
                self._progressed |= taken.progress
                if complete := taken.complete:
                    self._at_end = each.data == DONE
                    break
        finally:
            # Also what came before a failure: it counts as sent.
            if out:
                await self._give(bytes(out), tokens, answer, complete)
        if self._progressed:
            self._reading_since = asyncio.get_running_loop().time()
        return complete

    async def _give(self, out: bytes, tokens: int, answer: Answer, complete: bool) -> None:
        if not self._client.begun:
            self._revision = answer.revision
            header = (RESUMABLE_HEADER, "true" if self._resumable else "false")
            await self._client.begin(answer.status, [*answer.headers, header])
        if self._search.loss is not None:
            out = self._found(self._search.loss) + out
        await self._client.give(out, last=complete)
        self._traced.gave(tokens)
        self._account.answered(self._region, answer.headers)
        self._account.tokens_in, self._account.tokens_out = self._answer.usage
        if tokens or self._progressed:
            self._account.first_token = self._account.first_token or time.monotonic()
        if tokens:
            self._token_at = time.monotonic()
            self._metrics.tokens.inc(tokens)

    def _found(self, loss: Loss) -> bytes:
        """The search is over; a comment tells those who look at the bytes."""
        self._search.loss = None
        region = self._region or "unknown"
        if not self._resuming:
            return b""
        self._resumes += 1
        self._account.resumed = self._resumes
        self._metrics.resumes.labels(loss.failure.reason.value, region).inc()
        self._metrics.pause.observe(time.monotonic() - loss.token_at)
        self._traced.resumed(loss, region)
        log.info("stream %s: resumed from %s in %s", self._request.headers.get(REQUEST_ID, "?"), loss.region, region)
        return comment(f"resumed from {loss.region or 'unknown'} in {region}")

    def _note(self, failure: UpstreamFailure) -> None:
        log.info("stream %s lost %s: %s", self._request.headers.get(REQUEST_ID, "?"), self._region, failure)
        self._traced.lost(failure)
        self._search.note(failure, self._region, self._token_at)
        self._service = self._lookup() or self._service

    async def _next(self) -> Attempt | None:
        """Whom to ask now, and what; None if nobody need be asked. Raises GivenUp."""
        step = self._answer.next_step()
        match step:
            case Close(out):
                await self._client.give(out, last=True)
                return None
            case Stuck(why):
                raise GivenUp("stream_not_resumable", f"The engine was lost, and the stream cannot be resumed: {why}.")
            case GoOn() if self._service.max_resumes == 0:
                raise GivenUp("stream_not_resumable", "The engine was lost, and the service's maxResumes is 0.")
            case Again():
                self._resuming = False
                # Envoy counts no attempts of the relay's own: when all regions refused, any of their revisions will do.
                revision = ANY_REVISION if self._search.asked_all(self._service.regions) else None
                return Attempt(self._request.target, self._asked.first_body(), await self._choose(revision))
        if self._resumes >= self._service.max_resumes:
            raise GivenUp(
                "resumes_exhausted", f"The stream was resumed {self._resumes} times and lost its engine again."
            )
        return await self._continuation(step)

    async def _continuation(self, step: GoOn) -> Attempt | None:
        place = await self._choose(self._revision)
        room = step.room
        while room is None:
            try:
                room = await self._upstream.context_length(place) - len(step.token_ids)
            except UpstreamFailure as failure:
                self._region = place.region
                self._note(failure)
                place = await self._choose(self._revision)
        if room <= 0:
            await self._client.give(self._answer.ending("length"), last=True)
            return None
        self._resuming = True
        self._answer.continued()
        return Attempt(asked.COMPLETIONS, self._asked.continuation_body(step.token_ids, step.generated, room), place)

    async def _choose(self, revision: str | None) -> Place:
        return Place(self._key, await self._search.choose(self._service.regions), revision)

    def _first_token(self) -> float | None:
        """Seconds to wait for it; None: as long as the request may take, since its client has got nothing yet."""
        if not self._resuming or self._region is None:
            return None
        return self._search.patience(self._region, self._service.regions, self._patience.first_token)

    def _completed(self) -> Outcome:
        return Outcome.CONTINUED if self._resumes else Outcome.COMPLETED

    def _stalled(self) -> UpstreamFailure:
        return UpstreamFailure(Reason.STALLED, "no token came for too long")
