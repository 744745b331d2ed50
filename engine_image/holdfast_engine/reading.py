"""One request's answer as it comes: text and token ids in certain pieces, whatever form it is sent in.

The OpenAI routes (`responses.py`) and the KServe ones (`kserve/`) read the same pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from holdfast_engine.generation import Generation
from holdfast_engine.port import TokenLogprobs
from holdfast_engine.text import TextAssembler
from holdfast_engine.vocabulary import Vocabulary


class NewText(NamedTuple):
    """Text and token ids that are new, and the finish reason at the end."""

    text: str
    token_ids: list[int]
    reason: str | None
    logprobs: list[TokenLogprobs] | None = None
    """One for each of `token_ids`, where they were asked for."""


class AnswerReader:
    """Reads a generation up to its reason, or to the first of `stops`; must be closed.

    With `whole_pieces` each piece is exactly what its token ids decode to.
    """

    def __init__(
        self, generation: Generation, vocabulary: Vocabulary | None, stops: Sequence[str], whole_pieces: bool
    ) -> None:
        self._generation = generation
        self._assembler = TextAssembler(vocabulary, stops, whole_pieces)
        self._logprobs: deque[TokenLogprobs] = deque()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, once it is accepted."""
        return self._generation.prompt_tokens

    @property
    def token_count(self) -> int:
        """Tokens generated so far."""
        return self._assembler.token_count

    async def prompt_ids(self) -> list[int]:
        """The prompt's token ids once the request is accepted; to be read once, first. Raises EngineError."""
        return await self._generation.prompt_ids()

    async def next(self) -> NewText:
        """The next piece, which may be empty; raises EngineError when generation failed."""
        output = await self._generation.next()
        reason = output.reason
        self._logprobs += output.logprobs or ()
        if output.text is None:
            piece = self._assembler.add(output.token_ids)
        else:
            piece = self._assembler.add_text(output.text, output.token_ids, output.tokens)
        if piece.stopped:
            return self._new(piece.text, piece.token_ids, "stop")
        if reason is None:
            return self._new(piece.text, piece.token_ids, None)
        rest = self._assembler.finish()
        reason = "stop" if rest.stopped else reason
        return self._new(piece.text + rest.text, piece.token_ids + rest.token_ids, reason)

    def _new(self, text: str, token_ids: list[int], reason: str | None) -> NewText:
        told = [self._logprobs.popleft() for _ in token_ids] if self._logprobs else None
        return NewText(text, token_ids, reason, told)

    async def rest(self) -> NewText:
        """All that is still to come, in one piece."""
        text, token_ids, logprobs, reason = "", list[int](), list[TokenLogprobs](), None
        while reason is None:
            new = await self.next()
            text += new.text
            token_ids += new.token_ids
            logprobs += new.logprobs or ()
            reason = new.reason
        return NewText(text, token_ids, reason, logprobs or None)

    def close(self, reason: str) -> None:
        """The answer has ended with `reason` (stop, length, abort, error); unfinished work is cancelled."""
        self._generation.close(reason)
