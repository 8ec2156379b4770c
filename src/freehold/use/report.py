"""Sums over usage records, by model, by principal or by day: always from the rows, never from counters kept beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from freehold.nouns.moment import iso

By = Literal["model", "key", "day"]
_DAY_US = 86_400_000_000
_GROUPS = {"model": "model", "key": "principal", "day": f"CAST(at / {_DAY_US} AS INTEGER)"}


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sum of some requests in one currency. `name` is the model, the principal, or the UTC day (2026-01-31); `label`
    what people call it. `cost` in micro-units; `reported` counts requests whose tokens are a remote's word."""

    name: str
    currency: str
    requests: int
    interrupted: int
    released: int
    prompt: int
    cached: int
    generated: int
    delivered: int
    reported: int
    cost: int
    label: str = ""


def sum_usage(
    tx: Connection, by: By, *, since: int | None = None, until: int | None = None, principal: str | None
) -> list[UsageRow]:
    """Sums over since <= at < until (UTC microseconds), of one principal or of all (None); newest day or most requests first."""
    group = _GROUPS[by]
    sql = (
        f"SELECT {group} AS name, currency, count(*) AS requests, "
        "sum(CASE WHEN outcome = 'interrupted' THEN 1 ELSE 0 END) AS interrupted, "
        "sum(CASE WHEN outcome = 'released' THEN 1 ELSE 0 END) AS released, sum(prompt) AS prompt, sum(cached) AS cached, "
        "sum(generated) AS generated, sum(delivered) AS delivered, sum(reported) AS reported, sum(cost) AS cost FROM usage "
        "WHERE at >= COALESCE(:since, at) AND at < COALESCE(:until, at + 1) AND principal = COALESCE(:principal, principal) "
        f"GROUP BY {group}, currency ORDER BY {'name DESC' if by == 'day' else 'requests DESC, name'}"
    )
    rows = tx.execute(text(sql), {"since": since, "until": until, "principal": principal})
    return [
        UsageRow(
            iso(row.name * _DAY_US)[:10] if by == "day" else row.name, row.currency, row.requests, row.interrupted, row.released,
            row.prompt, row.cached, row.generated, row.delivered, row.reported, row.cost,
        ) for row in rows
    ]  # fmt: skip
