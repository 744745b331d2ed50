"""The tiny model is the same for the same seed, and readable."""

from __future__ import annotations

from pathlib import Path

from holdfast_engine.tiny_model import VOCAB_SIZE, vocabulary, write_tiny_model


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one = write_tiny_model(tmp_path / "one.gguf", seed=3)
    other = write_tiny_model(tmp_path / "other.gguf", seed=3)
    assert one.sha256 == other.sha256
    assert one.size == (tmp_path / "one.gguf").stat().st_size


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    one = write_tiny_model(tmp_path / "one.gguf", seed=3)
    assert one.sha256 != write_tiny_model(tmp_path / "other.gguf", seed=4).sha256


def test_every_piece_of_the_vocabulary_is_there_once() -> None:
    pieces, merges = vocabulary()
    assert len(pieces) == len(set(pieces)) == VOCAB_SIZE
    assert all(merge.replace(" ", "", 1) in pieces for merge in merges)


def test_nothing_but_the_model_is_left_in_the_folder(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
