"""The log of what happened: append-only, hash-chained from row 1, written in the transaction of the change itself.

Audit, alerts and feeds are readers with a cursor (`after`). The database refuses to change or delete rows, and
`verify_chain` finds what was changed behind its back.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, text

from freehold.errors import FreeholdError
from freehold.nouns.event import GENESIS, Event, chain_hash
from freehold.nouns.ids import uuid7


def append_event(tx: Connection, at: int, actor: str, kind: str, subject: str, payload: dict[str, Any]) -> Event:
    """Add one row. `kind` is `<noun>.<past participle>` (model.pulled); `payload` must be plain JSON values."""
    payload = json.loads(json.dumps(payload))
    last = tx.execute(text("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")).first()
    seq, prev = (last.seq + 1, last.hash) if last else (1, GENESIS)
    id_ = uuid7(at)
    event = Event(
        seq, id_, at, actor, kind, subject, payload, prev, chain_hash(seq, id_, at, actor, kind, subject, payload, prev)
    )
    sql = (
        "INSERT INTO events (seq, id, at, actor, kind, subject, payload_json, prev_hash, hash) "
        "VALUES (:seq, :id, :at, :actor, :kind, :subject, :payload, :prev, :hash)"
    )
    values = {
        "seq": seq, "id": id_, "at": at, "actor": actor, "kind": kind, "subject": subject, "prev": prev, "hash": event.hash,
        "payload": json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
    }  # fmt: skip
    tx.execute(text(sql), values)
    return event


def _event(row: Row[tuple[object, ...]]) -> Event:
    payload = json.loads(row.payload_json)
    return Event(row.seq, row.id, row.at, row.actor, row.kind, row.subject, payload, row.prev_hash, row.hash)


def list_events(tx: Connection, *, after: int = 0, limit: int = 100, subject: str | None = None) -> list[Event]:
    """Rows with seq > `after`, oldest first."""
    sql = "SELECT * FROM events WHERE seq > :after AND (:subject IS NULL OR subject = :subject) ORDER BY seq LIMIT :limit"
    return [_event(row) for row in tx.execute(text(sql), {"after": after, "limit": limit, "subject": subject})]


def latest_events(tx: Connection, *, limit: int = 100, before: int | None = None) -> list[Event]:
    """Newest first; `before` is the seq to page back from."""
    sql = "SELECT * FROM events WHERE (:before IS NULL OR seq < :before) ORDER BY seq DESC LIMIT :limit"
    return [_event(row) for row in tx.execute(text(sql), {"before": before, "limit": limit})]


def verify_chain(tx: Connection) -> int:
    """Recompute every hash; the number of rows. FreeholdError catalog-chain-broken names the first row that does not hold.

    A chain cannot show that rows were cut off its end: compare the head with one noted elsewhere for that."""
    prev, expected = GENESIS, 1
    for row in tx.execute(text("SELECT * FROM events ORDER BY seq")):
        event = _event(row)
        if event.seq != expected or event.prev_hash != prev or event.hash != event.expected_hash():
            raise FreeholdError(
                "catalog-chain-broken", f"event {event.seq} does not follow from event {expected - 1}", seq=event.seq
            )
        prev, expected = event.hash, expected + 1
    return expected - 1
