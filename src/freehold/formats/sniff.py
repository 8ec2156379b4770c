"""What a file is, by its first bytes and never by its name.

A file's name is its sender's claim: a pickle called `model.safetensors` is a pickle. Each kind is told by bytes that its
loaders insist on; a zip is looked into, through its own directory, for the entry that makes it a PyTorch file.

It opens nothing further: no archive is unpacked, no pickle read. Kinds without any mark of their own are not told.
"""

from __future__ import annotations

import re
from enum import StrEnum

from freehold.formats.git import MAX_POINTER, parse_lfs_pointer
from freehold.formats.safetensors import MAX_HEADER
from freehold.formats.source import ByteSource


class FileKind(StrEnum):
    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    PYTORCH = "pytorch"
    PICKLE = "pickle"
    ONNX = "onnx"
    HDF5 = "hdf5"
    LFS_POINTER = "lfs-pointer"


#: Kinds that hold weights; pickles alone may hold anything.
WEIGHTS = frozenset({FileKind.GGUF, FileKind.SAFETENSORS, FileKind.PYTORCH, FileKind.ONNX, FileKind.HDF5})
#: Kinds that run code when they are loaded in the usual way.
PICKLES = frozenset({FileKind.PYTORCH, FileKind.PICKLE})

_HEAD = 64
# The number with which torch.save began before it wrote zips, as pickle protocol 2 spells it.
_TORCH_BEFORE_ZIP = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
_ZIP, _ZIP_END, _ZIP_TAIL = b"PK\x03\x04", b"PK\x05\x06", 66_000
_ZIP_DIRECTORY = 8 * 2**20
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})


def sniff(source: ByteSource) -> FileKind | None:
    """The kind of a file, None if it shows none of these marks. Reads 64 bytes; of a zip its directory too."""
    head = source.pread(0, _HEAD)
    if head.startswith(b"GGUF"):
        return FileKind.GGUF
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER:
        return FileKind.SAFETENSORS
    if head.startswith(_TORCH_BEFORE_ZIP):
        return FileKind.PYTORCH
    if head.startswith(_ZIP):
        return FileKind.PYTORCH if _holds_data_pkl(source) else None
    if _PICKLE.match(head) and _ends_like_a_pickle(source):
        return FileKind.PICKLE
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return FileKind.HDF5
    if head.startswith(b"version https://git-lfs") and source.size <= MAX_POINTER:
        return FileKind.LFS_POINTER if parse_lfs_pointer(source.pread(0, source.size)) else None
    return FileKind.ONNX if _is_onnx(source) else None


def _holds_data_pkl(source: ByteSource) -> bool:
    """Whether the zip's directory, found from its end record, names `data.pkl` in a top folder."""
    start = max(0, source.size - _ZIP_TAIL)
    tail = source.pread(start, source.size - start)
    end = tail.rfind(_ZIP_END)
    if end < 0 or len(tail) < end + 22:
        return False
    length, offset = int.from_bytes(tail[end + 12 : end + 16], "little"), int.from_bytes(tail[end + 16 : end + 20], "little")
    if offset == 0xFFFFFFFF or length > _ZIP_DIRECTORY:  # zip64, or thousands of tensors: data.pkl is written first
        return b"data.pkl" in source.pread(0, 1024)
    return b"data.pkl" in source.pread(offset, length)


def _ends_like_a_pickle(source: ByteSource) -> bool:
    """A pickle's last opcode is STOP; legacy files of several pickles end with raw storage and are told by their first bytes."""
    return source.pread(source.size - 1, 1) == b"." if source.size > 2 else False


def _is_onnx(source: ByteSource) -> bool:
    """Walks the top-level fields of a protobuf message: an ONNX model has an ir_version first and a graph."""
    position = 0
    fields: list[int] = []
    while position < source.size:
        head = source.pread(position, 20)
        tag, used = _varint(head, 0)
        number, wire = tag >> 3, tag & 7
        if number not in _ONNX_FIELDS or wire not in (0, 2) or (not fields and (number, wire) != (1, 0)) or len(fields) > 10_000:
            return False
        value, end = _varint(head, used)
        if not end:
            return False
        fields.append(number)
        position += end + (value if wire == 2 else 0)
    return position == source.size and 7 in fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Value and the position after it; position 0 if it does not end within ten bytes."""
    value = 0
    for n in range(10):
        if at + n >= len(data):
            break
        value |= (data[at + n] & 0x7F) << 7 * n
        if data[at + n] < 0x80:
            return value, at + n + 1
    return 0, 0
