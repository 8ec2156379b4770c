"""Numbers, moments and texts as the pages write them.

Machines get the exact value beside every rounded one (`title`, `datetime`). Nothing here produces HTML but `ticks`, which
escapes first.
"""

from __future__ import annotations

import json
import re
from typing import Any

from markupsafe import Markup, escape

from freehold.nouns.moment import iso

_MINUTE_US = 60_000_000
_AGES = (("d", 1440 * _MINUTE_US), ("h", 60 * _MINUTE_US), ("min", _MINUTE_US))
#: Integers in this range are moments: no count of bytes or tokens comes near, and every moment from 2001 to 2096 lies in it.
_MOMENTS = range(10**15, 4 * 10**15)
_HASH = re.compile(r"(?:sha256:)?[0-9a-f]{40}(?:[0-9a-f]{24})?")
#: Narrow no-break space: between a number and its unit, and in long numbers.
THIN = "\u202f"


def size(count: int) -> str:
    """Bytes, decimal: 98.4 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{count}{THIN}B" if unit == "B" else f"{value:.1f}{THIN}{unit}"
        value /= 1000
    return f"{value:.1f}{THIN}TB"


def count(number: int | None) -> str:
    """A large number: 134.5 M."""
    if number is None:
        return "–"
    for unit, length in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= length:
            return f"{number / length:.1f}{THIN}{unit}"
    return str(number)


def grouped(number: int | None) -> str:
    """All digits in groups of three: 98 362 432."""
    return "–" if number is None else f"{number:,}".replace(",", THIN)


def money(micros: int, currency: str) -> str:
    """Integer micro-units as an amount: 1.25 EUR; below a cent all digits that count."""
    whole, rest = divmod(abs(micros), 1_000_000)
    cents = f"{rest:06d}"
    cents = cents[:2] if cents[2:] == "0000" else cents.rstrip("0")
    return f"{'-' if micros < 0 else ''}{grouped(whole)}.{cents}{THIN}{currency}"


def ago(at: int, now: int) -> str:
    """How long `at` lies before `now` (both UTC microseconds)."""
    for unit, length in _AGES:
        if now - at >= length:
            return f"{(now - at) // length}{THIN}{unit} ago"
    return "just now"


def moment(at: int) -> str:
    """2026-01-31 12:00 UTC."""
    return f"{day(at)} {iso(at)[11:16]} UTC"


def day(at: int) -> str:
    """2026-01-31, in UTC."""
    return iso(at)[:10]


def plain(value: Any) -> str:
    """A recorded value of any shape as text: moments, hashes and numbers as people read them, the rest as JSON."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return moment(value) if value in _MOMENTS else grouped(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def short(value: Any) -> str:
    """The same, hashes cut to what tells them apart."""
    return value[:12] if isinstance(value, str) and _HASH.fullmatch(value) else plain(value)


def ticks(text: str) -> Markup:
    """`text` escaped, with what stands between backticks set as code: hints of the errors table are written so."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts))
