"""The table of a container and the manifest of a file: their bytes, and nothing else.

Fixed structs, one encoding for each value, everything checked on the way in (docs/design/vault-format.md says the rules; the
names here are its own). A table that decodes is consistent in itself: its object ids follow from its block hashes. It does not
read files, and it does not know whether the payload keeps what the table promises.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.vault.hashing import BLOCK_SIZE, HASH_SIZE, Hashes, block_count, block_hash, object_id, object_id_of

VERSION = 1
_MAGIC = b"\x89FHT\r\n\x1a\n"
_END = b"FHTEND\r\n"
_FILE_MAGIC = b"\x89FHF\r\n\x1a\n"
_DETACHED = 1
_RAW = 0
_HEADER = struct.Struct("<8sHHIQ32sII")
_OBJECT = struct.Struct("<32sQQQHHI")
_LENGTH = struct.Struct("<I")
_FOOTER = struct.Struct("<32sQ8s")
_FILE = struct.Struct("<8sHHIQ32s")
_SEGMENT = struct.Struct("<32sQQ")


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """An object as it lies in a payload. `blocks` holds the hashes of its plain blocks, 32 bytes each."""

    id: Digest
    offset: int
    stored_length: int
    plain_length: int
    blocks: bytes
    encoding: int = _RAW

    def block(self, index: int) -> bytes:
        return self.blocks[index * HASH_SIZE : (index + 1) * HASH_SIZE]


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` plain bytes of an object, from `offset`."""

    object_id: Digest
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class FileManifest:
    """How one blob is made of objects."""

    size: int
    sha256: Digest
    segments: tuple[Segment, ...]

    def encode(self) -> bytes:
        head = _FILE.pack(_FILE_MAGIC, VERSION, 0, len(self.segments), self.size, bytes.fromhex(self.sha256.hex))
        return head + b"".join(_SEGMENT.pack(bytes.fromhex(s.object_id.hex), s.offset, s.length) for s in self.segments)

    @property
    def id(self) -> Digest:
        """The object id of the manifest itself."""
        return object_id_of(self.encode())


@dataclass(frozen=True, slots=True)
class Table:
    """A container's payload described. Version 1: one object that fills the payload, one file that is that object."""

    payload_length: int
    payload_sha256: Digest
    objects: tuple[ObjectEntry, ...]
    files: tuple[FileManifest, ...]

    @classmethod
    def of_loose_file(cls, hashes: Hashes) -> Table:
        """The table of a plain file with these hashes."""
        entry = ObjectEntry(hashes.object_id, 0, hashes.size, hashes.size, hashes.blocks)
        manifest = FileManifest(hashes.size, hashes.sha256, (Segment(hashes.object_id, 0, hashes.size),))
        return cls(hashes.size, hashes.sha256, (entry,), (manifest,))

    def encode(self) -> bytes:
        sha256 = bytes.fromhex(self.payload_sha256.hex)
        counts = (len(self.objects), len(self.files))
        parts = [_HEADER.pack(_MAGIC, VERSION, _DETACHED, BLOCK_SIZE, self.payload_length, sha256, *counts)]
        for o in self.objects:
            count = len(o.blocks) // HASH_SIZE
            parts.append(_OBJECT.pack(bytes.fromhex(o.id.hex), o.offset, o.stored_length, o.plain_length, o.encoding, 0, count))
            parts.append(o.blocks)
        for manifest in (file.encode() for file in self.files):
            parts += [_LENGTH.pack(len(manifest)), manifest]
        body = b"".join(parts)
        return body + _FOOTER.pack(block_hash(body), len(body) + _FOOTER.size, _END)

    def manifest_offsets(self) -> tuple[int, ...]:
        """Where each file's manifest begins in the encoded table, in the order of `files`."""
        at = _HEADER.size + sum(_OBJECT.size + len(o.blocks) for o in self.objects)
        offsets = []
        for file in self.files:
            offsets.append(at + _LENGTH.size)
            at += _LENGTH.size + len(file.encode())
        return tuple(offsets)


def table_length(size: int) -> int:
    """Bytes of the sidecar of a loose file of `size` bytes: what a writer needs room for."""
    fixed = _HEADER.size + _OBJECT.size + _LENGTH.size + _FILE.size + _SEGMENT.size + _FOOTER.size
    return fixed + block_count(size) * HASH_SIZE


def decode_table(data: bytes) -> Table:
    """Inverse of `Table.encode`. Raises vault-sidecar-invalid, or vault-format-newer if the version is higher."""
    _check_frame(data)
    reader = _Reader(data, len(data) - _FOOTER.size)
    _, version, flags, block_size, payload_length, sha256, objects, files = reader.take(_HEADER)
    _demand(
        version == VERSION and flags == _DETACHED and block_size == BLOCK_SIZE, "a version, flag or block size of no known kind"
    )
    _demand(objects == 1 and files == 1, "a loose file has one object and one manifest")
    entry = _decode_object(reader, payload_length)
    manifest = decode_manifest(reader.raw(reader.take(_LENGTH)[0]))
    _demand(reader.at == reader.stop, "bytes left over")
    payload = Digest.sha256(sha256.hex())
    _demand(entry.offset == 0 and entry.stored_length == payload_length, "the object does not fill the payload")
    whole = FileManifest(payload_length, payload, (Segment(entry.id, 0, payload_length),))
    _demand(manifest == whole, "the manifest does not describe the payload")
    return Table(payload_length, payload, (entry,), (manifest,))


def decode_manifest(data: bytes) -> FileManifest:
    """Inverse of `FileManifest.encode`. Raises vault-sidecar-invalid, or vault-format-newer."""
    reader = _Reader(data, len(data))
    magic, version, flags, count, size, sha256 = reader.take(_FILE)
    _demand(magic == _FILE_MAGIC, "not a file manifest")
    _check_version(version)
    _demand(flags == 0 and count >= 1 and count * _SEGMENT.size == reader.stop - reader.at, "flags or a count that do not fit")
    segments: list[Segment] = []
    for _ in range(count):
        raw, offset, length = reader.take(_SEGMENT)
        segment = Segment(Digest("blake3", raw.hex()), offset, length)
        last = segments[-1] if segments else None
        _demand(length > 0 or (count == 1 and size == 0), "an empty segment")
        continues = last is not None and last.object_id == segment.object_id and last.offset + last.length == offset
        _demand(not continues, "two segments that are one")
        segments.append(segment)
    _demand(sum(s.length for s in segments) == size, "segments that do not add up to the size")
    return FileManifest(size, Digest.sha256(sha256.hex()), tuple(segments))


def _check_frame(data: bytes) -> None:
    """Magic, version, footer and checksum: what tells damage from a newer format."""
    _demand(len(data) >= _HEADER.size + _FOOTER.size, "too short")
    _demand(data.startswith(_MAGIC), "not a table")
    checksum, length, end = _FOOTER.unpack_from(data, len(data) - _FOOTER.size)
    _demand(end == _END and length == len(data), "cut short or continued")
    _demand(block_hash(memoryview(data)[: -_FOOTER.size]) == checksum, "the checksum does not match")
    _check_version(struct.unpack_from("<H", data, 8)[0])


def _decode_object(reader: _Reader, payload_length: int) -> ObjectEntry:
    raw, offset, stored, plain, encoding, reserved, count = reader.take(_OBJECT)
    _demand(encoding == _RAW and reserved == 0, "an encoding or reserved field of no known kind")
    _demand(stored == plain and offset + stored <= payload_length, "an object that does not fit its payload")
    _demand(count == block_count(plain), "a wrong number of blocks")
    entry = ObjectEntry(Digest("blake3", raw.hex()), offset, stored, plain, reader.raw(count * HASH_SIZE))
    _demand(object_id(plain, entry.blocks) == entry.id, "an object id that does not follow from its blocks")
    return entry


def _check_version(version: int) -> None:
    if version > VERSION:
        raise FreeholdError("vault-format-newer", f"format version {version}; this freehold reads up to {VERSION}", found=version)
    _demand(version == VERSION, "a version that never was")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FreeholdError("vault-sidecar-invalid", f"the table is invalid: {otherwise}")


class _Reader:
    """Takes fixed structs from bytes and never reads beyond `stop`."""

    def __init__(self, data: bytes, stop: int) -> None:
        self._data = data
        self.at = 0
        self.stop = stop

    def raw(self, length: int) -> bytes:
        _demand(length <= self.stop - self.at, "cut short")
        self.at += length
        return self._data[self.at - length : self.at]

    def take(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.raw(form.size))
