"""safetensors: a strict reader, the writer, and the index of a sharded model.

The rules of a file: 8 bytes give the header's length, at most 100 MB and within the file; the header is one JSON object
that begins with `{`, no key in it twice; each tensor has a known dtype, a shape of non-negative integers and offsets that
span exactly its bytes; sorted by offset the tensors cover the rest of the file from its first byte to its last, without
gap or overlap; `__metadata__` maps text to text. Nothing may follow the last tensor, and hence nothing can hide there.

The rules of an index: `weight_map` maps tensor names to plain file names beside the index.

Neither reader looks at the values of a tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from freehold.errors import FreeholdError
from freehold.formats.source import ByteSource
from freehold.formats.strict_json import parse_json
from freehold.nouns.files import check_path
from freehold.nouns.tensors import TensorInfo

MAX_HEADER = 100_000_000
MAX_DIMENSIONS = 32
MAX_ELEMENTS = 2**62

#: Bits of one element.
DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """The header of one file; `tensors` by their place in the file, offsets absolute."""

    metadata: dict[str, str]
    tensors: tuple[TensorInfo, ...]
    data_start: int


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """`weight_map`: tensor name to file name. `total_size` in bytes as declared, None if it is not."""

    weight_map: dict[str, str]
    total_size: int | None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.weight_map.values())))


def read_safetensors(source: ByteSource) -> SafetensorsFile:
    """The header of `source`; FreeholdError formats-safetensors-truncated, -limit or -invalid if it breaks a rule above."""
    raw = _read_header(source)
    try:
        header = parse_json(raw)
    except ValueError as error:
        raise _invalid(f"its header is refused: {error}") from error
    if not isinstance(header, dict):
        raise _invalid("its header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _invalid("__metadata__ does not map text to text")
    data_start = 8 + len(raw)
    tensors = sorted((_tensor(name, entry, data_start) for name, entry in header.items()), key=lambda t: (t.start, t.stop))
    _check_coverage(tensors, data_start, source.size)
    return SafetensorsFile(metadata, tuple(tensors), data_start)


def write_safetensors(
    out: BinaryIO,
    tensors: Sequence[tuple[str, str, tuple[int, ...], bytes | memoryview]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write (name, dtype, row-major shape, data) to `out`, widest dtype first and then by name, so that all stay aligned.

    FreeholdError formats-tensors-unwritable if data and shape disagree; nothing is written then.
    """
    for name, dtype, shape, data in tensors:
        if dtype not in DTYPE_BITS or name == "__metadata__":
            raise _unwritable(f"the tensor {name!r} of {dtype!r} has no place in a safetensors file")
        bits, given = math.prod(shape) * DTYPE_BITS[dtype], memoryview(data).nbytes
        if bits != given * 8:
            raise _unwritable(f"the tensor {name!r} of {dtype} {list(shape)} takes {bits / 8:g} bytes, {given} are given")
    if len({name for name, *_ in tensors}) != len(tensors):
        raise _unwritable("two tensors have one name")
    if metadata is not None and not all(isinstance(v, str) for v in metadata.values()):
        raise _unwritable("metadata must map text to text")
    ordered = sorted(tensors, key=lambda t: (-DTYPE_BITS[t[1]], t[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, dtype, shape, data in ordered:
        stop = offset + memoryview(data).nbytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    head = head.ljust(-(-len(head) // 8) * 8)
    if len(head) > MAX_HEADER:
        raise _unwritable(f"the header would take {len(head)} bytes; the format's limit is {MAX_HEADER}")
    out.write(len(head).to_bytes(8, "little") + head)
    for *_, data in ordered:
        out.write(memoryview(data))


def parse_index(data: bytes) -> ShardIndex:
    """A `*.index.json` of a sharded model; FreeholdError formats-index-invalid if malformed or naming files elsewhere."""
    try:
        index = parse_json(data)
    except ValueError as error:
        raise _bad_index(str(error)) from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise _bad_index("it has no weight_map of tensor names to file names")
    for name in set(weight_map.values()):
        if "/" in name or not _is_path(name):
            raise _bad_index(f"the shard {name!r} is not a plain file name")
    metadata = index.get("metadata", {})
    metadata = metadata if isinstance(metadata, dict) else {}
    total = metadata.get("total_size")
    if isinstance(total, float) and total.is_integer():  # some writers divide and multiply
        total = int(total)
    return ShardIndex(weight_map, total if isinstance(total, int) and not isinstance(total, bool) else None, metadata)


def _read_header(source: ByteSource) -> bytes:
    if source.size < 8:
        raise _truncated(f"it has {source.size} bytes, not even the header's length", source.size)
    length = int.from_bytes(source.pread(0, 8), "little")
    if length > MAX_HEADER:
        raise FreeholdError(
            "formats-safetensors-limit", f"the safetensors header has {length} bytes; the limit is {MAX_HEADER}", length=length
        )
    if length > source.size - 8:
        raise _truncated(f"the header has {length} bytes, the file {source.size}", source.size)
    raw = source.pread(8, length)
    if len(raw) < length:
        raise _truncated("it was shortened while it was read", source.size)
    if not raw.startswith(b"{"):
        raise _invalid("its header does not begin with '{'")
    return raw


def _tensor(name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(f"the entry of {name!r} is not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise FreeholdError(
            "formats-safetensors-unsupported", f"the tensor {name!r} has the unknown dtype {str(dtype)[:40]!r}", tensor=name
        )
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise _invalid(f"the shape of {name!r} is not a short list of non-negative integers")
    if not _naturals(offsets) or len(offsets) != 2:
        raise _invalid(f"the offsets of {name!r} are not two non-negative integers")
    elements = 1
    for dimension in shape:
        elements *= dimension
        if elements > MAX_ELEMENTS:
            raise _invalid(f"the tensor {name!r} has more than {MAX_ELEMENTS} elements")
    start, stop = offsets
    if elements * DTYPE_BITS[dtype] != (stop - start) * 8:
        raise _invalid(f"the tensor {name!r} of {dtype} {shape} does not take the {stop - start} bytes that its offsets span")
    return TensorInfo(name, dtype, tuple(shape), data_start + start, data_start + stop)


def _check_coverage(tensors: list[TensorInfo], data_start: int, file_bytes: int) -> None:
    end = data_start
    for tensor in tensors:
        if tensor.start != end:
            what = "overlaps the one before" if tensor.start < end else f"leaves {tensor.start - end} bytes before it"
            raise _invalid(f"the tensor {tensor.name!r} {what}")
        end = tensor.stop
    if end > file_bytes:
        raise _truncated(f"its tensors end at byte {end}, the file at {file_bytes}", file_bytes)
    if end < file_bytes:
        raise _invalid(f"{file_bytes - end} bytes follow the last tensor")


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= MAX_ELEMENTS for v in value
    )


def _is_path(name: str) -> bool:
    try:
        check_path(name)
    except FreeholdError:
        return False
    return True


def _truncated(message: str, size: int) -> FreeholdError:
    return FreeholdError("formats-safetensors-truncated", f"the safetensors file is cut short: {message}", size=size)


def _invalid(message: str) -> FreeholdError:
    return FreeholdError("formats-safetensors-invalid", f"the safetensors file is malformed: {message}")


def _bad_index(message: str) -> FreeholdError:
    return FreeholdError("formats-index-invalid", f"the index of shards is refused: {message}")


def _unwritable(message: str) -> FreeholdError:
    return FreeholdError("formats-tensors-unwritable", message)
