"""The bytes behind each token id, and decoding them piece by piece. Pure.

GGUF vocabularies come in two kinds. "gpt2" (byte-level BPE) writes each byte as one printable character; the
table is the one published with GPT-2. "llama" (SentencePiece) writes a space as U+2581 and a single byte as
"<0xNN>". With bytes at hand, text is decoded incrementally and a UTF-8 sequence split over tokens is held
back until complete.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from functools import cache

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@cache
def byte_to_char() -> dict[int, str]:
    """GPT-2's table: printable Latin-1 bytes stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in table)
    table.update({byte: chr(0x100 + offset) for offset, byte in enumerate(others)})
    return table


@cache
def _char_to_byte() -> dict[str, int]:
    return {char: byte for byte, char in byte_to_char().items()}


def piece_bytes(piece: str, kind: str) -> bytes:
    """The bytes that `piece` stands for in a vocabulary of `kind` ("gpt2", else SentencePiece)."""
    if kind == "gpt2":
        table = _char_to_byte()
        if all(char in table for char in piece):
            return bytes(table[char] for char in piece)
        return piece.encode()
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace("\u2581", " ").encode()


class Vocabulary:
    """Token id → bytes. Control tokens have none."""

    def __init__(self, pieces: Sequence[str], control: Iterable[int], kind: str = "gpt2") -> None:
        silent = set(control)
        self._bytes = [b"" if i in silent else piece_bytes(piece, kind) for i, piece in enumerate(pieces)]

    def __len__(self) -> int:
        return len(self._bytes)

    def token_bytes(self, token: int) -> bytes:
        """The token's bytes; none for an id outside the vocabulary (padding rows of the output matrix)."""
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""


class Detokenizer:
    """Incremental: give tokens, get the text that is certain so far. Invalid bytes become U+FFFD."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int) -> str:
        return self._decoder.decode(self._vocabulary.token_bytes(token))

    @property
    def holds_back(self) -> bool:
        """Whether an incomplete UTF-8 sequence waits for its rest."""
        return bool(self._decoder.getstate()[0])

    def finish(self) -> str:
        """What was held back, when no more tokens come."""
        return self._decoder.decode(b"", final=True)
