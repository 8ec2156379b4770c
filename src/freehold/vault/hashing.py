"""Hash a stream once: its SHA-256, its block hashes and object id, and git's blob id if it is wanted.

Every file is read a single time at ingest, and SHA-256 costs three times as much as BLAKE3: it runs in a thread of its own beside
the block hashes (both release the interpreter lock), so that two cores finish in the time of one hash.
It does not know files, stores or names: it takes a function that fills a buffer.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest

try:
    from blake3 import blake3
except ImportError as error:  # pragma: no cover - the wheel exists wherever the suite runs
    raise FreeholdError("vault-blake3-unavailable", f"the package blake3 cannot be loaded: {error}") from error

#: Plain bytes per block: the unit of authentication.
BLOCK_SIZE = 262_144
#: Bytes per BLAKE3 digest.
HASH_SIZE = 32
_OBJECT_CONTEXT = "freehold vault 2026 object id v1"
_CHUNK = 4 * BLOCK_SIZE

#: Fills the buffer from its start and returns how many bytes it put there; 0 is the end.
Fill = Callable[[memoryview], int]


@dataclass(frozen=True, slots=True)
class Hashes:
    """What one pass over `size` bytes yields; `blocks` holds the block hashes one after another (32 bytes each)."""

    size: int
    sha256: Digest
    object_id: Digest
    blocks: bytes
    git_sha1: Digest | None = None


def block_count(length: int) -> int:
    """How many blocks `length` plain bytes make."""
    return -(-length // BLOCK_SIZE)


def block_hash(block: bytes | memoryview) -> bytes:
    """The 32-byte BLAKE3 digest of one block."""
    return blake3(block).digest()


def object_id(length: int, blocks: bytes) -> Digest:
    """The id of an object of `length` plain bytes with these block hashes."""
    return Digest(
        "blake3", blake3(struct.pack("<QI", length, BLOCK_SIZE) + blocks, derive_key_context=_OBJECT_CONTEXT).hexdigest()
    )


def object_id_of(data: bytes) -> Digest:
    """The id of the object with exactly these bytes."""
    view = memoryview(data)
    return object_id(len(data), b"".join(block_hash(view[at : at + BLOCK_SIZE]) for at in range(0, len(data), BLOCK_SIZE)))


def hash_stream(
    fill: Fill,
    size: int,
    *,
    git: bool = False,
    sink: Callable[[memoryview], None] | None = None,
    passed: Callable[[int], None] | None = None,
) -> Hashes:
    """Read to the end through `fill`, hashing; each chunk is handed to `sink` too, and `passed` hears the bytes done.

    `size` is what the stream is expected to hold (git hashes it first). Raises vault-changed if the stream is longer
    or shorter.
    """
    sha256 = hashlib.sha256()
    sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if git else None
    hashers = [sha256.update] + ([sha1.update] if sha1 is not None else [])
    blocks = bytearray()
    done = 0
    buffers = [
        memoryview(bytearray(min(_CHUNK, max(size, 1)) + 1 if size < _CHUNK else _CHUNK))
        for _ in range(2 if size > _CHUNK else 1)
    ]
    turn = 0
    with ExitStack() as stack:
        side = stack.enter_context(ThreadPoolExecutor(1, "sha256")) if size > _CHUNK else None
        running: Future[None] | None = None
        while filled := _fill_whole(fill, buffers[turn]):
            chunk = buffers[turn][:filled]
            done += filled
            if done > size:
                break
            if running is not None:
                running.result()
            if side is not None:
                running = side.submit(_update_all, hashers, chunk)
            else:
                _update_all(hashers, chunk)
            for at in range(0, filled, BLOCK_SIZE):
                blocks += block_hash(chunk[at : at + BLOCK_SIZE])
            if sink is not None:
                sink(chunk)
            if passed is not None:
                passed(done)
            turn = (turn + 1) % len(buffers)
        if running is not None:
            running.result()
    if done != size:
        raise FreeholdError("vault-changed", f"expected {size} bytes, found {'more' if done > size else done}", expected=size)
    return Hashes(
        size,
        Digest.sha256(sha256.hexdigest()),
        object_id(size, bytes(blocks)),
        bytes(blocks),
        Digest("gitsha1", sha1.hexdigest()) if sha1 is not None else None,
    )


def _fill_whole(fill: Fill, buffer: memoryview) -> int:
    """Fill `buffer` entirely unless the stream ends, so that chunks keep to block borders."""
    filled = 0
    while filled < len(buffer) and (got := fill(buffer[filled:])):
        filled += got
    return filled


def _update_all(hashers: Sequence[Callable[[memoryview], None]], chunk: memoryview) -> None:
    for update in hashers:
        update(chunk)
