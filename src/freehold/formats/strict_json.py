"""JSON from strangers: no duplicate keys, no NaN, no depth or size that costs more than it says.

Python's own parser keeps the last of two equal keys, which lets two programs read two different files out of one, and
builds whatever it is given. Here the number of structural marks is counted before parsing, so that memory is bounded by
a limit rather than by the imagination of the sender.

It checks JSON, not meaning.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

#: Brackets, braces, commas and quotes: each costs at most about 100 bytes once parsed.
MAX_MARKS = 4_000_000


def parse_json(data: bytes, *, marks: int = MAX_MARKS, unique: bool = True) -> Any:
    """The value; ValueError with a plain reason if it is not UTF-8 JSON within the limits."""
    if sum(data.count(mark) for mark in (b"{", b"[", b",", b'"')) > marks:
        raise ValueError(f"it has more than {marks} structural characters")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique if unique else dict,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_fraction,
        )
        if b"\\ud" in data or b"\\uD" in data:  # half of a surrogate pair makes text that cannot be written anywhere
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("it holds half of a surrogate pair") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError("it nests too deep") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:200]!r} stands twice")
    return found


def _constant(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}, which is not JSON")


def _fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text[:40]}, which is beyond a double")
    return value


def _integer(text: str) -> int:
    if len(text) > 40:
        raise ValueError("it holds a number of more than 40 digits")
    return int(text)
