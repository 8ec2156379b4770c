"""GGUF version 3, little endian: the writer.

Used where freehold makes models itself. A plain Python value takes the type that loaders expect of it: an int is uint32
(or wider, or signed, where it must be), a float float32, a list of ints int32; `Typed` says otherwise. The same
arguments give the same bytes.

It encodes no tensor: data come as the bytes that the type says.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from freehold.errors import FreeholdError
from freehold.formats import ggml

_TYPES: dict[str, tuple[int, str]] = {
    "uint8": (0, "B"),
    "int8": (1, "b"),
    "uint16": (2, "H"),
    "int16": (3, "h"),
    "uint32": (4, "I"),
    "int32": (5, "i"),
    "float32": (6, "f"),
    "bool": (7, "?"),
    "uint64": (10, "Q"),
    "int64": (11, "q"),
    "float64": (12, "d"),
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Typed:
    """A value, and its type (a list: its elements') spelled out: uint8..uint64, int8..int64, float32, float64, bool, string."""

    type: str
    value: Any


def write_gguf(
    out: BinaryIO, metadata: Mapping[str, Any], tensors: Sequence[tuple[str, str, tuple[int, ...], bytes | memoryview]]
) -> None:
    """Write one model to `out`.

    Tensors are (name, ggml type name, row-major shape, data); data are padded to `general.alignment` (32 unless given).
    FreeholdError formats-tensors-unwritable if a value fits no type, or data and shape disagree; nothing is written then.
    """
    alignment = metadata.get("general.alignment", 32)
    alignment = alignment.value if isinstance(alignment, Typed) else alignment
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise _unwritable(f"general.alignment is {alignment!r}, not a power of two")
    header = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))]
    header.extend(_keyed(key, value) for key, value in metadata.items())
    offset, names = 0, set[str]()
    for name, dtype, shape, data in tensors:
        if name in names:
            raise _unwritable(f"the tensor {name!r} is given twice")
        names.add(name)
        header.append(_entry(name, dtype, shape, memoryview(data).nbytes, offset))
        offset += _padded(memoryview(data).nbytes, alignment)
    head = b"".join(header)
    out.write(head.ljust(_padded(len(head), alignment), b"\0"))
    for *_, data in tensors:
        view = memoryview(data)
        out.write(view)
        out.write(b"\0" * (_padded(view.nbytes, alignment) - view.nbytes))


def _entry(name: str, dtype: str, shape: tuple[int, ...], given: int, offset: int) -> bytes:
    kind = ggml.BY_NAME.get(dtype)
    if kind is None:
        raise _unwritable(f"the tensor {name!r} has the unknown type {dtype!r}")
    if len(shape) > 4:
        raise _unwritable(f"the tensor {name!r} has {len(shape)} dimensions; GGUF holds 4")
    wanted = kind.nbytes(shape)
    if wanted != given:
        raise _unwritable(f"the tensor {name!r} of {dtype} {list(shape)} takes {wanted} bytes, {given} are given")
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return _text(name) + dimensions + struct.pack("<IQ", kind.number, offset)


def _keyed(key: str, value: Any) -> bytes:
    try:
        if isinstance(value, Typed):
            return _text(key) + _typed(value.type, value.value)
        return _text(key) + _typed(_type_of(key, value), value)
    except (struct.error, KeyError, TypeError, AttributeError, UnicodeEncodeError) as error:
        raise _unwritable(f"the metadata value of {key!r} does not fit its type") from error


def _typed(kind: str, value: Any) -> bytes:
    many = isinstance(value, list | tuple)
    if kind == "string":
        if many:
            return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(_text(v) for v in value)
        return struct.pack("<I", _STRING) + _text(value)
    number, form = _TYPES[kind]
    if many:
        return struct.pack(f"<IIQ{len(value)}{form}", _ARRAY, number, len(value), *value)
    return struct.pack(f"<I{form}", number, value)


def _type_of(key: str, value: Any) -> str:
    if not isinstance(value, list | tuple):
        return _scalar_type(key, value)
    if not value:
        raise _unwritable(f"the empty list {key!r} has no type; say Typed(type, [])")
    if all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        return "int32" if all(-(2**31) <= v < 2**31 for v in value) else "int64"
    kinds = {_scalar_type(key, v) for v in value}
    if len(kinds) > 1:
        raise _unwritable(f"the list {key!r} mixes {' and '.join(sorted(kinds))}")
    return kinds.pop()


def _scalar_type(key: str, value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int() if 0 <= value < 2**32:
            return "uint32"
        case int() if -(2**31) <= value < 0:
            return "int32"
        case int():
            return "uint64" if value > 0 else "int64"
        case float():
            return "float32"
        case str():
            return "string"
    raise _unwritable(f"the metadata value of {key!r} is a {type(value).__name__}; GGUF has no such type")


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _padded(length: int, alignment: int) -> int:
    return -(-length // alignment) * alignment


def _unwritable(message: str) -> FreeholdError:
    return FreeholdError("formats-tensors-unwritable", message)
