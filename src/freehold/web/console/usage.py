"""Usage: what was asked and answered here, summed from the ledger's records over a span of whole UTC days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from freehold.flows.usage import UsageRow, usage
from freehold.web.console.page import render
from freehold.web.console.pictures import Columns, columns, tints
from freehold.web.console.place import parts_of
from freehold.web.console.visitor import visitor
from freehold.web.console.words import day

_DAY_US = 86_400_000_000
#: Spans that can be chosen, in days.
SPANS = (7, 30, 90, 365)
_GENERATED, _PROMPT = "generated", "prompt"


@dataclass(frozen=True, slots=True)
class Total:
    """All requests of the span; `cost` in micro-units by currency."""

    requests: int
    interrupted: int
    prompt: int
    generated: int
    cost: dict[str, int]


def show(request: Request) -> Response:
    """GET /-/usage?days=: an admin sees all keys, any other key sees its own."""
    parts, caller = parts_of(request), visitor(request).caller
    asked = request.query_params.get("days", "30")
    days = next((span for span in SPANS if str(span) == asked), 30)
    today = parts.clock() // _DAY_US * _DAY_US
    since = today - (days - 1) * _DAY_US
    by_model, by_key, by_day = (usage(parts, caller, since=since, by=by) for by in ("model", "key", "day"))
    return render(
        request, "usage.html", section="usage", days=days, spans=SPANS, since=since, total=_total(by_model), by_model=by_model,
        by_key=by_key, by_day=by_day, chart=_chart(by_day, since, days), tints=tints((_GENERATED, _PROMPT)),
    )  # fmt: skip


def _total(rows: Sequence[UsageRow]) -> Total:
    cost = Counter[str]()
    for row in rows:
        cost[row.currency] += row.cost
    return Total(
        requests=sum(r.requests for r in rows),
        interrupted=sum(r.interrupted for r in rows),
        prompt=sum(r.prompt for r in rows),
        generated=sum(r.generated for r in rows),
        cost=dict(cost),
    )


def _chart(rows: Sequence[UsageRow], since: int, days: int) -> Columns:
    """Tokens of each day, those without a request included."""
    known: dict[str, Counter[str]] = {day(since + i * _DAY_US): Counter() for i in range(days)}
    for row in rows:
        known.setdefault(row.name, Counter()).update({_GENERATED: row.generated, _PROMPT: row.prompt})
    return columns([(name[5:], stack) for name, stack in known.items()], 720, 180, tints((_GENERATED, _PROMPT)), names=7)
