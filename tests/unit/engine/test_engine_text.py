"""Incremental text: UTF-8 split over tokens, stop strings split over tokens, pieces that can be continued."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from holdfast_engine.text import StopStrings, TextAssembler
from holdfast_engine.vocabulary import Detokenizer, Vocabulary, byte_to_char, piece_bytes

BYTES = Vocabulary([byte_to_char()[byte] for byte in range(256)] + ["<end>"], control=[256])


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(ends)]


def test_every_byte_has_its_own_character() -> None:
    assert len(set(byte_to_char().values())) == 256


@given(st.binary())
def test_a_byte_level_piece_stands_for_the_bytes_it_was_made_of(content: bytes) -> None:
    assert piece_bytes("".join(byte_to_char()[byte] for byte in content), "gpt2") == content


def test_sentencepiece_pieces_hold_spaces_and_single_bytes() -> None:
    assert piece_bytes("\u2581the", "llama") == b" the"
    assert piece_bytes("<0xE2>", "llama") == b"\xe2"


@given(st.binary())
def test_tokens_one_by_one_give_the_same_text_as_all_bytes_at_once(content: bytes) -> None:
    detokenizer = Detokenizer(BYTES)
    text = "".join(detokenizer.add(byte) for byte in content) + detokenizer.finish()
    assert text == content.decode(errors="replace")


@given(st.text())
def test_no_replacement_character_appears_in_the_middle_of_valid_text(text: str) -> None:
    detokenizer = Detokenizer(BYTES)
    pieces = [detokenizer.add(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert not detokenizer.holds_back


def test_control_tokens_and_unknown_ids_have_no_text() -> None:
    assert BYTES.token_bytes(256) == BYTES.token_bytes(9999) == BYTES.token_bytes(-1) == b""


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4)), st.lists(st.integers(0)))
def test_any_split_of_a_text_stops_at_the_same_place(text: str, stops: list[str], places: list[int]) -> None:
    finder = StopStrings(stops)
    seen, stopped = "", False
    for piece in cut(text, places):
        certain, stopped = finder.add(piece)
        seen += certain
        if stopped:
            break
    if not stopped:
        seen += finder.finish()
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert stopped == bool(ends)
    assert seen == (text[: min(ends)[1]] if ends else text)


def test_text_before_a_possible_stop_is_not_held_back() -> None:
    assert StopStrings(["END"]).add("some text E") == ("some text ", False)


def test_the_stop_that_is_complete_first_wins() -> None:
    assert StopStrings(["late", "soon"]).add("x soon, y late") == ("x ", True)


def test_a_stop_that_spans_tokens_ends_the_answer_and_counts_its_tokens() -> None:
    assembler = TextAssembler(BYTES, ["\n\n"])
    assert assembler.add(b"a\n").text == "a"
    piece = assembler.add(b"\nmore")
    assert (piece.text, piece.stopped, assembler.token_count) == ("", True, 3)


def test_a_held_back_beginning_of_a_stop_is_given_out_at_the_end() -> None:
    assembler = TextAssembler(BYTES, ["stop"])
    assert assembler.add(b"a st").text == "a "
    assert assembler.finish().text == "st"


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_each_whole_piece_is_what_its_token_ids_decode_to(text: str, stops: list[str]) -> None:
    assembler = TextAssembler(BYTES, stops, whole_pieces=True)
    ids: list[int] = []
    for byte in text.encode():
        piece = assembler.add([byte])
        if piece.stopped:
            break
        ids += piece.token_ids
        assert piece.text == bytes(piece.token_ids).decode()
    else:
        ids += assembler.finish().token_ids
        assert bytes(ids).decode() == text
