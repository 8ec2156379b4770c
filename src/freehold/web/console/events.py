"""The log: newest first, paged, filtered by kind and by words, with the hash chain checked on demand.

A filter looks through a bounded stretch of the log at a time and says where it stopped, so that a rare word in a long log
costs a page, not a minute.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from freehold.errors import FreeholdError
from freehold.flows.events import list_events, verify_events
from freehold.nouns.event import Event
from freehold.web.console.page import render, wants_part
from freehold.web.console.place import parts_of
from freehold.web.console.visitor import visitor
from freehold.web.console.words import short

_PAGE = 50
_STRIDE = 500
_LOOK_THROUGH = 10_000


@dataclass(frozen=True, slots=True)
class _Stretch:
    """`events` that match, newest first; `older` is the row to go on from, None at the log's beginning; `looked`: rows read."""

    events: list[Event]
    older: int | None
    looked: int


def index(request: Request) -> Response:
    """GET /-/events?kind=&q=&before=."""
    kind, words = request.query_params.get("kind", "").strip(), request.query_params.get("q", "").strip()
    before = _number(request.query_params.get("before"))
    found = _matching(request, kind, words, before)
    query = {k: v for k, v in (("kind", kind), ("q", words)) if v}
    return render(
        request, "_events.html" if wants_part(request, "log") else "events.html", section="events",
        rows=[(e, _pairs(e)) for e in found.events], kind=kind, q=words, before=before, looked=found.looked,
        older=urlencode(query | {"before": found.older}) if found.older else "", newest=urlencode(query),
        headers={"Vary": "HX-Target"},
    )  # fmt: skip


def chain(request: Request) -> Response:
    """GET /-/events/chain: recompute every hash; the badge alone for htmx, else a page with it."""
    broken = None
    rows = 0
    try:
        rows = verify_events(parts_of(request), visitor(request).caller)
    except FreeholdError as error:
        if error.code != "catalog-chain-broken":
            raise
        broken = error
    part = wants_part(request, "chain")
    return render(request, "_chain.html" if part else "chain.html", section="events", rows=rows, broken=broken)


def _matching(request: Request, kind: str, words: str, before: int | None) -> _Stretch:
    parts, caller = parts_of(request), visitor(request).caller
    wanted, found, looked = words.casefold(), list[Event](), 0
    stride = _STRIDE if kind or words else _PAGE
    while looked < _LOOK_THROUGH:
        read = list_events(parts, caller, before=before, limit=stride)
        for event in read:
            looked, before = looked + 1, event.seq
            if _matches(event, kind, wanted):
                found.append(event)
            if len(found) == _PAGE:
                return _Stretch(found, before if before > 1 else None, looked)
        if len(read) < stride:
            return _Stretch(found, None, looked)
    return _Stretch(found, before, looked)


def _matches(event: Event, kind: str, wanted: str) -> bool:
    if kind and event.kind != kind and not event.kind.startswith(f"{kind}."):
        return False
    return not wanted or wanted in f"{event.actor}\n{event.kind}\n{event.subject}\n{json.dumps(event.payload)}".casefold()


def _pairs(event: Event) -> list[tuple[str, str, str]]:
    """The payload as (name, value as people read it, exact value)."""
    return [(name, short(value), value if isinstance(value, str) else json.dumps(value)) for name, value in event.payload.items()]


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
