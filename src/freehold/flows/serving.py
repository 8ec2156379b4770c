"""What a server needs of its home beside its routes: the lock that keeps a second one away, the first key, a sign of life."""

from __future__ import annotations

from freehold.access import NewKey
from freehold.catalog.events import append_event
from freehold.db import ServerLock
from freehold.errors import FreeholdError
from freehold.flows import keys
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope


def lock(parts: Parts, caller: Caller) -> ServerLock:
    """Be the one server of this home until the lock is left. FreeholdError server-already-running with the other's URL."""
    caller.require(Scope.ADMIN)
    return ServerLock(parts.home).acquire()


def first_key(parts: Parts, caller: Caller) -> NewKey | None:
    """At the first start, while the home has no key: an admin key, whose token is in the answer only. Else None."""
    caller.require(Scope.ADMIN)
    if keys.has_keys(parts):
        return None
    return keys.create_key(parts, caller, "admin", frozenset({Scope.ADMIN}))


def require_keys(parts: Parts, host: str) -> None:
    """FreeholdError server-open-without-keys if the home has no active key."""
    if not keys.has_keys(parts):
        raise FreeholdError("server-open-without-keys", f"refused to listen on {host}: the home has no key", host=host)


def note(parts: Parts, caller: Caller, kind: str, url: str) -> None:
    """Write `server.started` or `server.stopped` to the event log."""
    caller.require(Scope.ADMIN)
    with parts.catalog.write() as tx:
        append_event(tx, parts.clock(), caller.principal, kind, url, {})


def tidy(parts: Parts) -> str:
    """Clear away what crashes left in the vault; what was done, in words. Raises vault-*, db-*."""
    return f"swept the vault: {parts.vault.sweep()}"


async def stop_engines(parts: Parts) -> None:
    """Stop every engine that this server started; to be called on its event loop."""
    await parts.pool.close()


def check(parts: Parts) -> None:
    """Whether the catalog can be read. Raises db-*."""
    keys.has_keys(parts)
