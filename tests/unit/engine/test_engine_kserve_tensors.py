"""Tensors against the encoders of Triton's own client."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from holdfast_engine.errors import InvalidRequestError
from holdfast_engine.kserve.tensors import DATATYPES, Tensor, decode, encode, from_values, to_json

NUMBERS = [datatype for datatype in DATATYPES if datatype != "BYTES"]


def numbers(datatype: str) -> st.SearchStrategy[list[Any]]:
    if datatype == "BOOL":
        return st.lists(st.booleans())
    kind = np.dtype(triton_to_np_dtype(datatype))
    if datatype.startswith("FP"):
        return st.lists(st.floats(width=8 * kind.itemsize, allow_nan=False))
    limits = np.iinfo(kind)
    return st.lists(st.integers(int(limits.min), int(limits.max)))


@given(st.lists(st.binary(max_size=40), min_size=1))
def test_byte_elements_are_written_and_read_as_the_client_does(values: list[bytes]) -> None:
    shape = (len(values),)
    data = encode(Tensor("x", "BYTES", shape, values))
    assert data == serialize_byte_tensor(np.array(values, dtype=np.object_)).item()
    assert list(deserialize_bytes_tensor(data)) == values
    assert decode("x", "BYTES", shape, data).values == values


@given(st.data(), st.sampled_from(NUMBERS))
def test_numbers_are_written_and_read_as_numpy_does(data: st.DataObject, datatype: str) -> None:
    values = data.draw(numbers(datatype))
    array = np.array(values, dtype=triton_to_np_dtype(datatype))
    assert np_to_triton_dtype(array.dtype) == datatype
    tensor = Tensor("x", datatype, (len(values),), values)
    assert encode(tensor) == array.tobytes()
    assert decode("x", datatype, (len(values),), array.tobytes()) == tensor
    assert from_values("x", datatype, (len(values),), array.tolist()) == tensor
    assert to_json(tensor) == array.tolist()


@given(st.lists(st.lists(st.text(max_size=5), min_size=3, max_size=3), min_size=1))
def test_nested_lists_are_read_in_row_major_order(rows: list[list[str]]) -> None:
    tensor = from_values("x", "BYTES", (len(rows), 3), rows)
    assert to_json(tensor) == [text for row in rows for text in row]


@given(st.binary(max_size=60))
def test_any_bytes_are_either_elements_or_refused(data: bytes) -> None:
    for count in range(8):
        with contextlib.suppress(InvalidRequestError):
            assert encode(decode("x", "BYTES", (count,), data)) == data


def test_lists_nested_more_deeply_than_python_recurses_are_refused_and_not_fatal() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequestError, match="has 0 elements"):
        from_values("x", "INT32", (1,), deep)


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "said"),
    [
        ("INT32", (2,), [1], "1 elements; its shape .2. needs 2"),
        ("INT32", (-1,), [1], "negative size"),
        ("BF16", (1,), [1], "datatype 'BF16'"),
        ("INT8", (1,), [300], "300, too large for INT8"),
        ("INT32", (1,), [True], "True, which is no INT32"),
        ("INT32", (1,), [1.0], "1.0, which is no INT32"),
        ("BOOL", (1,), [1], "1, which is no BOOL"),
        ("BYTES", (1,), [1], "1, which is no BYTES"),
        ("BYTES", (1,), ["\ud800"], "half of a surrogate pair"),
        ("FP16", (1,), [1e9], "too large for FP16"),
    ],
)
def test_values_that_are_not_what_was_announced_are_refused(
    datatype: str, shape: tuple[int, ...], values: list[Any], said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        from_values("x", datatype, shape, values)


def test_bytes_that_are_not_what_was_announced_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="has 7 bytes; its shape and datatype need 8"):
        decode("x", "INT64", (1,), bytes(7))
    with pytest.raises(InvalidRequestError, match="longer than what was sent"):
        decode("x", "BYTES", (1,), b"\xff\xff\xff\xffabc")
