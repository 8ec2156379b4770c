"""The conformance suite of ByteSource: what every reader of a format relies on, whatever lies beneath."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from freehold.formats.source import ByteSource

Make = Callable[[bytes], AbstractContextManager[ByteSource]]


def check_byte_source(make: Make) -> None:
    """Hold the source that `make` opens over given bytes against the protocol; AssertionError where it differs."""
    data = bytes(range(256)) * 2000
    with make(data) as source:
        _require(source.size == len(data), "size is the number of bytes")
        for offset, length in ((0, 10), (1, 1), (255, 70_000), (len(data) - 3, 3), (0, len(data))):
            _require(source.pread(offset, length) == data[offset : offset + length], "a range within is given exactly")
        _require(source.pread(len(data) - 3, 100) == data[-3:], "a range over the end is given as far as it goes")
        for offset in (len(data), len(data) + 100):
            _require(source.pread(offset, 10) == b"", "past the end there is nothing")
        _require(source.pread(5, 0) == b"", "no bytes are no bytes")
        _require(source.pread(0, 4) == source.pread(0, 4) == data[:4], "reading moves no cursor")
    with make(b"") as empty:
        _require(empty.size == 0, "an empty file has a size of 0")
        _require(empty.pread(0, 10) == b"", "an empty file has no bytes")


def _require(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)
