"""Time: UTC integer microseconds everywhere; a clock is injected, never asked for globally."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

#: Gives the present as UTC microseconds since 1970-01-01.
Clock = Callable[[], int]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso(at: int) -> str:
    """RFC 3339 in UTC with milliseconds, as the Hub API writes it: 2026-01-31T12:00:00.000Z."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_iso(text: str) -> int:
    """Inverse of `iso` for any RFC 3339 text; ValueError if malformed or without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no UTC offset: {text}")
    return (moment - _EPOCH) // timedelta(microseconds=1)
