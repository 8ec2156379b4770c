"""GGUF, versions 2 and 3, little endian: a strict reader.

A model file is a stranger's input, and the programs that load it are written in C: what this reader refuses never
reaches them. The rules: the magic is `GGUF`; the version is 2 or 3; every count, length and dimension is checked against
its limit and against the bytes that are left before anything is allocated; a key or a tensor name stands once; arrays
do not nest; tensor types are known ones; each tensor starts on the alignment, lies whole within the file and overlaps
no other. Long values (token lists) are not read but located, and read when somebody asks (`read_deferred`).

It decodes no tensor and judges no content: bytes between or after the tensors are counted, and what that means is for
the study to say. Version 1 and big-endian files are refused by name. Writing is `gguf_writer`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, NoReturn

from freehold.errors import FreeholdError
from freehold.formats import ggml
from freehold.formats.gguf_writer import Typed, write_gguf
from freehold.formats.source import ByteSource
from freehold.nouns.tensors import TensorInfo

__all__ = ["DEFAULT_ALIGNMENT", "MAGIC", "Deferred", "GgufFile", "Typed", "read_deferred", "read_gguf", "write_gguf"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# Limits. The largest files known have 2,000 tensors, 60 keys, half a million merges and 20 MB of header.
MAX_HEADER = 256 * 2**20
MAX_KEYS = 65_536
MAX_TENSORS = 200_000
MAX_NAME = 4_096
MAX_STRING = 64 * 2**20
MAX_STRINGS = 8_000_000
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 2**20
MAX_ELEMENTS = 2**62
# What is kept in memory without being asked for.
KEPT_STRING = 2**20
KEPT_STRINGS = 16 * 2**20
KEPT_ARRAY = 64

_WINDOW = 2**20
_STRING, _ARRAY = 8, 9
_U64 = struct.Struct("<Q")
_KEYED_VALUE_BYTES = 8 + 4 + 1  # of the shortest key, type and value
_TENSOR_BYTES = 8 + 4 + 4 + 8

_SCALARS: dict[int, tuple[str, struct.Struct]] = {
    0: ("uint8", struct.Struct("<B")),
    1: ("int8", struct.Struct("<b")),
    2: ("uint16", struct.Struct("<H")),
    3: ("int16", struct.Struct("<h")),
    4: ("uint32", struct.Struct("<I")),
    5: ("int32", struct.Struct("<i")),
    6: ("float32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<?")),
    10: ("uint64", struct.Struct("<Q")),
    11: ("int64", struct.Struct("<q")),
    12: ("float64", struct.Struct("<d")),
}


@dataclass(frozen=True, slots=True)
class Deferred:
    """A long value left in the file: bytes `start`..`stop`. `count` elements of an array; None for a single string."""

    type: str
    count: int | None
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The header of one file.

    `metadata` in the file's order: int, float, bool, str, list, or `Deferred` where long; `types` gives each key's type
    (of the elements, for an array). `tensors` in the file's order, shapes row-major (the reverse of ggml's own order),
    offsets absolute. `gaps` counts bytes between tensors beyond padding, `trailing` those after the last one and its padding.
    """

    version: int
    metadata: dict[str, Any]
    types: dict[str, str]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_start: int
    gaps: int = 0
    trailing: int = 0
    file_bytes: int = field(default=0)


def read_gguf(source: ByteSource) -> GgufFile:
    """The header of `source`; FreeholdError formats-gguf-* if it breaks a rule of this module's docstring."""
    cursor = _Cursor(source)
    version = _read_version(cursor)
    tensor_count, key_count = cursor.u64(), cursor.u64()
    _check_count("tensors", tensor_count, MAX_TENSORS, _TENSOR_BYTES, cursor)
    _check_count("metadata keys", key_count, MAX_KEYS, _KEYED_VALUE_BYTES, cursor)
    metadata, types = _read_metadata(cursor, key_count)
    alignment = _alignment(metadata, types)
    entries = [_read_tensor(cursor) for _ in range(tensor_count)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors = tuple(_place(entry, data_start, alignment, source.size) for entry in entries)
    gaps, trailing = _check_layout(tensors, data_start, alignment, source.size)
    return GgufFile(version, metadata, types, tensors, alignment, data_start, gaps, trailing, source.size)


def read_deferred(source: ByteSource, value: Deferred) -> Any:
    """The value itself: a str, or a list of `count` elements. `source` must be the file that `value` was read from."""
    cursor = _Cursor(source, value.start, value.stop)
    if value.count is None:
        return cursor.string(MAX_STRING)
    if value.type == "string":
        return [cursor.string(MAX_STRING) for _ in range(value.count)]
    return _numbers(cursor, next(s for name, s in _SCALARS.values() if name == value.type), value.count)


class _Cursor:
    """Reads forward through a window; never past `stop`."""

    def __init__(self, source: ByteSource, position: int = 0, stop: int | None = None) -> None:
        self.source = source
        self._window = b""
        self._base = position
        self.position = position
        self.stop = min(source.size, MAX_HEADER) if stop is None else stop

    @property
    def left(self) -> int:
        return self.stop - self.position

    @property
    def capped(self) -> bool:
        """The limit ends the header, not the file."""
        return self.stop == MAX_HEADER < self.source.size

    def take(self, length: int) -> bytes:
        start = self._locate(length)
        self.position += length
        return self._window[start : start + length]

    def skip(self, length: int) -> None:
        if length > self.left:
            self._ends(length)
        self.position += length

    def unpack(self, form: struct.Struct) -> Any:
        start = self._locate(form.size)
        self.position += form.size
        return form.unpack_from(self._window, start)[0]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def string(self, limit: int) -> str:
        """Text as stored; bytes that are not UTF-8 become U+FFFD (tokens of some vocabularies are raw bytes)."""
        return self.take(self.string_length(limit)).decode("utf-8", "replace")

    def name(self, what: str) -> str:
        try:
            return self.take(self.string_length(MAX_NAME)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _invalid(f"a {what} is not UTF-8") from error

    def string_length(self, limit: int) -> int:
        length = int(self.unpack(_U64))
        if length > self.left:
            self._ends(length)
        if length > limit:
            raise _limit(f"a string of {length} bytes", limit)
        return length

    def skip_strings(self, count: int) -> None:
        for _ in range(count):
            start = self._locate(8)
            length = _U64.unpack_from(self._window, start)[0]
            self.position += 8
            if length > self.left:
                self._ends(length)
            self.position += length

    def _locate(self, length: int) -> int:
        """Offset in the window at which `length` bytes from the position lie; loads a new window if need be."""
        start = self.position - self._base
        if start >= 0 and start + length <= len(self._window):
            return start
        if length > self.left:
            self._ends(length)
        self._base = self.position
        self._window = self.source.pread(self.position, min(max(length, _WINDOW), self.left))
        if len(self._window) < length:
            self._ends(length)
        return 0

    def _ends(self, length: int) -> NoReturn:
        if self.capped:
            raise _limit(f"a header that wants {length} bytes at {self.position}", MAX_HEADER)
        raise FreeholdError(
            "formats-gguf-truncated",
            f"the GGUF file ends at byte {self.source.size}, inside its header: {length} bytes wanted at {self.position}",
            size=self.source.size,
            position=self.position,
        )


def _read_version(cursor: _Cursor) -> int:
    if cursor.left < len(MAGIC) or cursor.take(4) != MAGIC:
        raise FreeholdError("formats-gguf-magic", "not a GGUF file: it does not start with 'GGUF'")
    version = cursor.u32()
    if version in VERSIONS:
        return version
    if version & 0xFFFF == 0 and version:
        raise FreeholdError("formats-gguf-big-endian", "the GGUF file is big-endian; only little-endian files are read")
    raise FreeholdError("formats-gguf-version", f"GGUF version {version} is not read; versions 2 and 3 are", version=version)


def _check_count(what: str, count: int, limit: int, least: int, cursor: _Cursor) -> None:
    if count > limit:
        raise _limit(f"{count} {what}", limit)
    if count * least > cursor.left:
        if cursor.capped:
            raise _limit(f"a header with {count} {what}", MAX_HEADER)
        raise FreeholdError(
            "formats-gguf-truncated",
            f"the GGUF header promises {count} {what}, more than fit in the {cursor.left} bytes left",
            count=count,
        )


def _read_metadata(cursor: _Cursor, count: int) -> tuple[dict[str, Any], dict[str, str]]:
    metadata: dict[str, Any] = {}
    types: dict[str, str] = {}
    kept = strings = 0
    for _ in range(count):
        key = cursor.name("metadata key")
        if key in metadata:
            raise _invalid(f"the metadata key {key!r} stands twice")
        kind = cursor.u32()
        if kind == _ARRAY:
            types[key], metadata[key], walked = _read_array(cursor, key, strings)
            strings += walked
        elif kind == _STRING:
            types[key] = "string"
            metadata[key] = value = _read_string(cursor, kept)
            kept += len(value) if isinstance(value, str) else 0
        elif kind in _SCALARS:
            types[key], form = _SCALARS[kind]
            metadata[key] = cursor.unpack(form)
        else:
            raise FreeholdError(
                "formats-gguf-unsupported", f"the metadata key {key!r} has the unknown type {kind}", key=key, type=kind
            )
    return metadata, types


def _read_string(cursor: _Cursor, kept: int) -> str | Deferred:
    start = cursor.position
    length = cursor.string_length(MAX_STRING)
    if length > KEPT_STRING or kept + length > KEPT_STRINGS:
        cursor.skip(length)
        return Deferred("string", None, start, cursor.position)
    return cursor.take(length).decode("utf-8", "replace")


def _read_array(cursor: _Cursor, key: str, strings: int) -> tuple[str, list[Any] | Deferred, int]:
    """Element type, value, and the number of strings walked over."""
    kind, count = cursor.u32(), cursor.u64()
    start = cursor.position
    if kind == _ARRAY:
        raise FreeholdError(
            "formats-gguf-limit", f"the metadata key {key!r} holds an array of arrays, which no engine takes", key=key
        )
    if kind == _STRING:
        _check_count(f"strings in {key!r}", count, MAX_STRINGS - strings, 8, cursor)
        cursor.skip_strings(count)
        found = Deferred("string", count, start, cursor.position)
        short = count <= KEPT_ARRAY and found.stop - start <= KEPT_STRING // 16
        return "string", read_deferred(cursor.source, found) if short else found, count
    if kind not in _SCALARS:
        raise FreeholdError(
            "formats-gguf-unsupported", f"the array {key!r} has elements of the unknown type {kind}", key=key, type=kind
        )
    name, form = _SCALARS[kind]
    _check_count(f"elements in {key!r}", count, MAX_HEADER, form.size, cursor)
    if count <= KEPT_ARRAY:
        return name, _numbers(cursor, form, count), 0
    cursor.skip(count * form.size)
    return name, Deferred(name, count, start, cursor.position), 0


def _numbers(cursor: _Cursor, form: struct.Struct, count: int) -> list[Any]:
    return [value for (value,) in form.iter_unpack(cursor.take(count * form.size))]


def _alignment(metadata: dict[str, Any], types: dict[str, str]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if "general.alignment" in types and types["general.alignment"] not in ("uint32", "uint64", "int32"):
        raise _invalid(f"general.alignment has the type {types['general.alignment']}")
    if not isinstance(value, int) or value <= 0 or value & (value - 1) or value > MAX_ALIGNMENT:
        raise _invalid(f"general.alignment is {value}, not a power of two up to {MAX_ALIGNMENT}")
    return value


def _read_tensor(cursor: _Cursor) -> tuple[str, ggml.GgmlType, tuple[int, ...], int, int]:
    """Name, type, row-major shape, offset within the data, bytes."""
    name = cursor.name("tensor name")
    dimensions = cursor.u32()
    if dimensions > MAX_DIMENSIONS:
        raise _invalid(f"the tensor {name!r} has {dimensions} dimensions; at most {MAX_DIMENSIONS} exist")
    shape = tuple(cursor.u64() for _ in range(dimensions))[::-1]
    number, offset = cursor.u32(), cursor.u64()
    kind = ggml.TYPES.get(number)
    if kind is None:
        raise FreeholdError(
            "formats-gguf-unsupported", f"the tensor {name!r} has the unknown type {number}", tensor=name, type=number
        )
    elements = 1
    for dimension in shape:
        elements *= dimension
        if elements > MAX_ELEMENTS:
            raise _limit(f"the tensor {name!r} of shape {list(shape)}", MAX_ELEMENTS)
    size = kind.nbytes(shape)
    if size is None:
        raise _invalid(f"rows of the tensor {name!r} are not whole blocks of {kind.block} elements ({kind.name})")
    return name, kind, shape, offset, size


def _place(
    entry: tuple[str, ggml.GgmlType, tuple[int, ...], int, int], data_start: int, alignment: int, file_bytes: int
) -> TensorInfo:
    name, kind, shape, offset, size = entry
    if offset % alignment:
        raise _invalid(f"the tensor {name!r} starts at {offset}, which is not a multiple of the alignment {alignment}")
    start = data_start + offset
    if start + size > file_bytes:
        raise FreeholdError(
            "formats-gguf-truncated",
            f"the tensor {name!r} ends at byte {start + size}, the file at {file_bytes}",
            tensor=name,
            stop=start + size,
            size=file_bytes,
        )
    return TensorInfo(name, kind.name, shape, start, start + size)


def _check_layout(tensors: tuple[TensorInfo, ...], data_start: int, alignment: int, file_bytes: int) -> tuple[int, int]:
    """Bytes in gaps and bytes after the end; refuses names that stand twice and tensors that overlap."""
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise _invalid(f"the tensor {tensor.name!r} stands twice")
        names.add(tensor.name)
    end, gaps, last = data_start, 0, ""
    for tensor in sorted(tensors, key=lambda t: (t.start, t.stop)):
        if tensor.start < end and tensor.stop > tensor.start:
            raise _invalid(f"the tensors {last!r} and {tensor.name!r} overlap")
        padded = -(-end // alignment) * alignment
        gaps += max(0, tensor.start - padded)
        end, last = max(end, tensor.stop), tensor.name
    return gaps, max(0, file_bytes - -(-end // alignment) * alignment)


def _invalid(message: str) -> FreeholdError:
    return FreeholdError("formats-gguf-invalid", f"the GGUF file is malformed: {message}")


def _limit(what: str, limit: int) -> FreeholdError:
    return FreeholdError("formats-gguf-limit", f"the GGUF file has {what}; the limit is {limit}", limit=limit)
