"""Tensors as the v2 protocol moves them: lists in JSON, little-endian bytes in binary. Pure.

Source of the binary form: Triton's "Binary Tensor Data" extension; an element of BYTES has its length before it, in
four bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast_engine.errors import InvalidRequestError

Value = bool | int | float | bytes
_FORMATS = {
    **{"BOOL": "?", "FP16": "e", "FP32": "f", "FP64": "d"},
    **{"INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q"},
    **{"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"},
}
DATATYPES = ("BYTES", *_FORMATS)


@dataclass(frozen=True)
class Tensor:
    """`values` in row-major order, as many as `shape` says; of BYTES they are bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]


def text_tensor(name: str, *texts: str) -> Tensor:
    return Tensor(name, "BYTES", (len(texts),), [text.encode() for text in texts])


def encode(tensor: Tensor) -> bytes:
    """The tensor's binary form."""
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in tensor.values)
    return struct.pack(f"<{len(tensor.values)}{_FORMATS[tensor.datatype]}", *tensor.values)


def decode(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Tensor:
    """The tensor of a binary form; raises InvalidRequestError where the bytes are not what was announced."""
    count = _count(name, datatype, shape)
    if datatype == "BYTES":
        values: list[Any] = list(_byte_elements(name, data))
    else:
        layout = f"<{count}{_FORMATS[datatype]}"
        if struct.calcsize(layout) != len(data):
            raise InvalidRequestError(
                f"The tensor `{name}` has {len(data)} bytes; its shape and datatype need {struct.calcsize(layout)}.",
                param=name,
            )
        values = list(struct.unpack(layout, data))
    return _checked(Tensor(name, datatype, tuple(shape), values), count)


def from_values(name: str, datatype: str, shape: Sequence[int], data: Any) -> Tensor:
    """The tensor of a list, nested or flat, as JSON and protobuf have it; raises InvalidRequestError."""
    count = _count(name, datatype, shape)
    values = [_value(name, datatype, value) for value in _flat(data)]
    return _checked(Tensor(name, datatype, tuple(shape), values), count)


def to_json(tensor: Tensor) -> list[Any]:
    """The tensor's values for JSON; bytes must be UTF-8."""
    return [value.decode() for value in tensor.values] if tensor.datatype == "BYTES" else tensor.values


def _count(name: str, datatype: str, shape: Sequence[int]) -> int:
    if datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise InvalidRequestError(f"The tensor `{name}` has the datatype {datatype!r}; known are {known}.", param=name)
    if any(size < 0 for size in shape):
        raise InvalidRequestError(f"The tensor `{name}` has a negative size in its shape {list(shape)}.", param=name)
    return math.prod(shape)


def _checked(tensor: Tensor, count: int) -> Tensor:
    if len(tensor.values) != count:
        shape, found = list(tensor.shape), len(tensor.values)
        raise InvalidRequestError(
            f"The tensor `{tensor.name}` has {found} elements; its shape {shape} needs {count}.", param=tensor.name
        )
    return tensor


def _byte_elements(name: str, data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        begin = at + 4
        end = begin + int.from_bytes(data[at:begin], "little")
        if end > len(data) or begin > len(data):
            raise InvalidRequestError(
                f"An element of the tensor `{name}` is longer than what was sent: each has its length before it, "
                "as four little-endian bytes.",
                param=name,
            )
        yield data[begin:end]
        at = end


def _flat(data: Any) -> Iterator[Any]:
    """The elements of lists in lists; without recursion, since a client decides how deep they are."""
    waiting: list[Iterator[Any]] = [iter([data])]
    while waiting:
        for each in waiting[-1]:
            if isinstance(each, Iterable) and not isinstance(each, str | bytes | dict):
                waiting.append(iter(each))
                break
            yield each
        else:
            waiting.pop()


def _value(name: str, datatype: str, value: Any) -> Value:
    """One element given as a value of Python's; raises InvalidRequestError when it is not of the datatype."""
    if datatype == "BYTES":
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            return _encoded(name, value)
    elif datatype == "BOOL":
        if isinstance(value, bool):
            return value
    elif isinstance(value, float if datatype.startswith("FP") else int) and not isinstance(value, bool):
        return _fitting(name, datatype, value)
    elif datatype.startswith("FP") and isinstance(value, int) and not isinstance(value, bool):
        return _fitting(name, datatype, float(value))
    raise InvalidRequestError(f"The tensor `{name}` holds {value!r:.50}, which is no {datatype}.", param=name)


def _fitting(name: str, datatype: str, value: float) -> Value:
    try:
        struct.pack("<" + _FORMATS[datatype], value)
    except (struct.error, OverflowError) as error:
        raise InvalidRequestError(
            f"The tensor `{name}` holds {value}, too large for {datatype}.", param=name
        ) from error
    return value


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"The tensor `{name}` holds half of a surrogate pair.", param=name) from error
