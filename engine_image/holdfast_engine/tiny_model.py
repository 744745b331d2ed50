"""Writes a tiny Llama with random weights as a GGUF file: the model of tests, demos and drills.

Deterministic: the same seed gives the same bytes. The vocabulary is byte-level BPE of 512 pieces: three
control tokens, the 256 bytes, and merged pairs of printable characters. Rows of the output matrix that would
produce control tokens or unprintable bytes are damped, so that what the model says is mostly readable text
and rarely ends by itself.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from holdfast_engine.vocabulary import byte_to_char

CONTROL_TOKENS = ("<s>", "</s>", "<pad>")
LETTERS = " etaoinshrdlu"
VOCAB_SIZE = 512
_NORMAL, _CONTROL = 1, 3

Matrix = npt.NDArray[np.float16]


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the model; lengths in tokens, widths in elements."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 256
    context_length: int = 8192


@dataclass(frozen=True)
class WrittenModel:
    path: Path
    size: int
    """Bytes."""
    sha256: str


def write_tiny_model(path: Path, seed: int = 0, shape: TinyShape | None = None) -> WrittenModel:
    """Write the model to `path`, replacing what is there, and say what was written."""
    shape = shape or TinyShape()
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(str(partial), "llama")
    _add_metadata(writer, shape)
    _add_vocabulary(writer)
    _add_tensors(writer, shape, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)
    content = path.read_bytes()
    return WrittenModel(path, len(content), hashlib.sha256(content).hexdigest())


def vocabulary() -> tuple[list[str], list[str]]:
    """The pieces in the order of their ids, and the merges that build the pairs."""
    alphabet = byte_to_char()
    pieces = [*CONTROL_TOKENS, *(alphabet[byte] for byte in range(256))]
    merges = []
    for left, right in itertools.product(LETTERS, LETTERS):
        if right != " ":
            merges.append((alphabet[ord(left)], alphabet[ord(right)]))
    for left in "bcfgkmpvwyBCDFGHJKLMNPRSTVW":
        merges.extend((left, right) for right in "aeiou")
    merges = merges[: VOCAB_SIZE - len(pieces)]
    pieces += [left + right for left, right in merges]
    return pieces, [f"{left} {right}" for left, right in merges]


def _add_metadata(writer: gguf.GGUFWriter, shape: TinyShape) -> None:
    writer.add_name("holdfast-tiny")
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_vocab_size(VOCAB_SIZE)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    pieces, merges = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(pieces)
    writer.add_token_types([_CONTROL] * len(CONTROL_TOKENS) + [_NORMAL] * (len(pieces) - len(CONTROL_TOKENS)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)


def _add_tensors(writer: gguf.GGUFWriter, shape: TinyShape, random: np.random.Generator) -> None:
    def weights(rows: int, columns: int, scale: float = 1.0) -> Matrix:
        drawn = random.standard_normal((rows, columns)) * (scale / np.sqrt(columns))
        return np.asarray(drawn, dtype=np.float16)

    norm = np.ones(shape.width, dtype=np.float32)
    kv_width = shape.width // shape.heads * shape.kv_heads
    writer.add_tensor("token_embd.weight", weights(VOCAB_SIZE, shape.width, scale=4.0))
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        writer.add_tensor(f"{block}.attn_norm.weight", norm)
        writer.add_tensor(f"{block}.attn_q.weight", weights(shape.width, shape.width))
        writer.add_tensor(f"{block}.attn_k.weight", weights(kv_width, shape.width))
        writer.add_tensor(f"{block}.attn_v.weight", weights(kv_width, shape.width))
        writer.add_tensor(f"{block}.attn_output.weight", weights(shape.width, shape.width))
        writer.add_tensor(f"{block}.ffn_norm.weight", norm)
        writer.add_tensor(f"{block}.ffn_gate.weight", weights(shape.feed_forward, shape.width))
        writer.add_tensor(f"{block}.ffn_up.weight", weights(shape.feed_forward, shape.width))
        writer.add_tensor(f"{block}.ffn_down.weight", weights(shape.width, shape.feed_forward))
    writer.add_tensor("output_norm.weight", norm)
    writer.add_tensor("output.weight", _damped(weights(VOCAB_SIZE, shape.width, scale=2.0)))


def _damped(output: Matrix) -> Matrix:
    """The output matrix with the rows of control tokens and unprintable bytes made nearly silent."""
    first_byte = len(CONTROL_TOKENS)
    unprintable = [first_byte + byte for byte in range(256) if not 0x20 <= byte < 0x7F]
    output[[*range(first_byte), *unprintable]] *= np.float16(0.05)
    return output
