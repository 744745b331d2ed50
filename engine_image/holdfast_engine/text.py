"""From token ids to text, incrementally: UTF-8 is held back until whole, stop strings are cut. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast_engine.vocabulary import Detokenizer, Vocabulary


class StopStrings:
    """Finds stop strings in text that comes in pieces; holds back an end that may be a stop's beginning.

    The stop that is complete first wins, the longer of two that end together: so the answer does not depend
    on how the text is cut into pieces.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    @property
    def holds_back(self) -> bool:
        return bool(self._held)

    def add(self, text: str) -> tuple[str, bool]:
        """The text that is certain, and whether a stop string (dropped, with what follows) was reached."""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)[1]], True
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _possible_beginning(self, text: str) -> int:
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0


@dataclass(frozen=True)
class Piece:
    """Text that became certain, with the ids of all tokens that came since the piece before."""

    text: str
    token_ids: list[int]
    stopped: bool
    """A stop string was reached: the answer ends with this piece."""


class TextAssembler:
    """One answer's text. With `whole_pieces`, text is given out only together with all the tokens it came
    from: each piece is then exactly what its token ids decode to, and an answer can be continued elsewhere
    from the end of any piece. Without a vocabulary the text is the engine's own, and comes through `add_text`."""

    def __init__(self, vocabulary: Vocabulary | None, stops: Sequence[str] = (), whole_pieces: bool = False) -> None:
        self._detokenizer = None if vocabulary is None else Detokenizer(vocabulary)
        self._stops = StopStrings(stops)
        self._whole_pieces = whole_pieces
        self._text = ""
        self._token_ids: list[int] = []
        self.token_count = 0

    def add(self, tokens: Iterable[int]) -> Piece:
        """Take tokens up to the one that completes a stop string; `token_count` counts those taken."""
        assert self._detokenizer is not None
        for token in tokens:
            self.token_count += 1
            self._token_ids.append(token)
            text, stopped = self._stops.add(self._detokenizer.add(token))
            self._text += text
            if stopped:
                return self._take(stopped=True)
        if self._whole_pieces and (self._detokenizer.holds_back or self._stops.holds_back):
            return Piece("", [], stopped=False)
        return self._take(stopped=False)

    def add_text(self, text: str, tokens: Sequence[int], count: int) -> Piece:
        """Take text that the engine made, and the tokens it came from, or only their number; such text is held back by
        the engine until it is valid, so that tokens without text wait for those that complete it."""
        self.token_count += count
        self._token_ids += tokens
        certain, stopped = self._stops.add(text)
        self._text += certain
        if stopped:
            return self._take(stopped=True)
        if self._whole_pieces and (not text or self._stops.holds_back):
            return Piece("", [], stopped=False)
        return self._take(stopped=False)

    def finish(self) -> Piece:
        """The rest, when the model ended by itself or at its limit."""
        held = "" if self._detokenizer is None else self._detokenizer.finish()
        text, stopped = self._stops.add(held)
        self._text += text + self._stops.finish()
        return self._take(stopped)

    def _take(self, stopped: bool) -> Piece:
        piece = Piece(self._text, self._token_ids, stopped)
        self._text, self._token_ids = "", []
        return piece
