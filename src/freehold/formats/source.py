"""ByteSource: the bytes of one file, read by position; what every reader of a format takes.

One small protocol, so that a reader does not care whether the bytes lie in memory, in an open file or in the vault, and
so that a 100 GB file costs only the bytes that are looked at. Reading by position has no cursor: one source may serve
several readers at once.

It opens and closes nothing: whoever hands over a source owns what lies beneath it.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Protocol

from freehold.errors import FreeholdError


class ByteSource(Protocol):
    """`size` in bytes. `pread` gives exactly `length` bytes from `offset`, fewer only where the file ends, none past it."""

    @property
    def size(self) -> int: ...

    def pread(self, offset: int, length: int, /) -> bytes: ...


class BytesSource:
    """Bytes that are in memory."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")

    @property
    def size(self) -> int:
        return len(self._view)

    def pread(self, offset: int, length: int, /) -> bytes:
        _check_range(offset, length)
        return bytes(self._view[offset : offset + length])


class FileSource:
    """An open regular file; its size is taken once. FreeholdError formats-source-unreadable if it cannot be read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        try:
            self._size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise _unreadable(error) from error

    @property
    def size(self) -> int:
        return self._size

    def pread(self, offset: int, length: int, /) -> bytes:
        _check_range(offset, length)
        wanted = max(0, min(length, self._size - offset))
        parts: list[bytes] = []
        while wanted:
            try:
                part = os.pread(self._file.fileno(), wanted, offset)
            except OSError as error:
                raise _unreadable(error) from error
            if not part:  # shortened by someone since it was opened
                break
            parts.append(part)
            offset += len(part)
            wanted -= len(part)
        return b"".join(parts)


def read_all(source: ByteSource, limit: int, what: str) -> bytes:
    """The whole of a small file; FreeholdError formats-too-large if it is longer than `limit` bytes."""
    if source.size > limit:
        raise FreeholdError(
            "formats-too-large",
            f"{what} has {source.size} bytes; at most {limit} are read",
            what=what,
            size=source.size,
            limit=limit,
        )
    return source.pread(0, source.size)


def _check_range(offset: int, length: int) -> None:
    if offset < 0 or length < 0:
        raise ValueError(f"not a range: {offset}+{length}")


def _unreadable(error: OSError) -> FreeholdError:
    return FreeholdError("formats-source-unreadable", f"a file could not be read: {error.strerror or error}", errno=error.errno)
