"""Events: what happened in this house."""

from __future__ import annotations

from freehold.catalog import events
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.event import Event


def list_events(
    parts: Parts, caller: Caller, *, after: int | None = None, before: int | None = None, limit: int = 100
) -> list[Event]:
    """Newest first (paged back by `before`), or oldest first from `after` on."""
    caller.require(Scope.ADMIN)
    with parts.catalog.read() as tx:
        if after is not None:
            return events.list_events(tx, after=after, limit=limit)
        return events.latest_events(tx, limit=limit, before=before)


def verify_events(parts: Parts, caller: Caller) -> int:
    """Recompute the hash chain; the number of rows. FreeholdError catalog-chain-broken names the first bad row."""
    caller.require(Scope.ADMIN)
    with parts.catalog.read() as tx:
        return events.verify_chain(tx)
