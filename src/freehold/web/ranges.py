"""The Range header of RFC 9110: one range of bytes, or what to answer instead.

Rules: a header that is not understood, names another unit or several ranges is ignored (the whole is sent, as the standard
allows); a suffix longer than the file is the file; a range that begins past the end, or an empty suffix, is unsatisfiable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from freehold.errors import FreeholdError

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,20})\s*-\s*(\d{0,20})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` up to and without `stop`, of `size`."""

    start: int
    stop: int
    size: int

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range asked for of a file of `size` bytes; None for the whole. Raises hub-range-not-satisfiable."""
    match = _RANGE.fullmatch(header) if header is not None else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        if length == 0:
            raise _unsatisfiable(header, size)
        return ByteRange(size - length, size, size)
    start, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if match[2] and last < start:
        return None
    if start >= size:
        raise _unsatisfiable(header, size)
    return ByteRange(start, min(last + 1, size), size)


def _unsatisfiable(header: str | None, size: int) -> FreeholdError:
    message = f"the file has {size} bytes: none lies in {header!r}"
    return FreeholdError("hub-range-not-satisfiable", message, size=size)


def etag_matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header (weak comparison, a list, or `*`) names `etag` (without quotes)."""
    if header is None:
        return False
    named = [part.strip().removeprefix("W/").strip('"') for part in header.split(",")]
    return header.strip() == "*" or etag in named


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether a Range counts under this If-Range header: absent, or the same strong ETag. A date never matches: none is sent."""
    return if_range is None or if_range.strip() == f'"{etag}"'
