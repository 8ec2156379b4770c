"""Keys: who may knock at the doors, made, listed, revoked and recognised."""

from __future__ import annotations

from freehold import access
from freehold.access import KeyRow, NewKey
from freehold.catalog.events import append_event
from freehold.errors import FreeholdError
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope

__all__ = [
    "KeyRow",
    "NewKey",
    "close_session",
    "create_key",
    "has_keys",
    "identify",
    "list_keys",
    "open_session",
    "parse_scopes",
    "revoke_key",
]

#: How long a console session lasts.
SESSION_US = 12 * 3600 * 1_000_000


def parse_scopes(names: tuple[str, ...]) -> frozenset[Scope]:
    """FreeholdError access-scope-unknown for a name that is none."""
    try:
        return frozenset(Scope(n) for n in names)
    except ValueError as error:
        raise FreeholdError("access-scope-unknown", f"unknown scope among: {', '.join(names)}") from error


def create_key(parts: Parts, caller: Caller, name: str, scopes: frozenset[Scope], *, expires_at: int | None = None) -> NewKey:
    """Make a key; its token is in the answer and nowhere else afterwards."""
    caller.require(Scope.ADMIN)
    now = parts.clock()
    with parts.catalog.write() as tx:
        made = access.create_key(tx, now, name=name, scopes=scopes, expires_at=expires_at)
        payload = {"name": name, "scopes": sorted(scopes), "expires_at": expires_at}
        append_event(tx, now, caller.principal, "key.created", made.row.public_id, payload)
    return made


def list_keys(parts: Parts, caller: Caller) -> list[KeyRow]:
    """All keys, revoked and expired ones included."""
    caller.require(Scope.ADMIN)
    with parts.catalog.read() as tx:
        return access.list_keys(tx)


def revoke_key(parts: Parts, caller: Caller, public_id: str) -> KeyRow:
    """End a key and the console sessions opened with it."""
    caller.require(Scope.ADMIN)
    now = parts.clock()
    with parts.catalog.write() as tx:
        row = access.revoke_key(tx, now, public_id)
        append_event(tx, now, caller.principal, "key.revoked", public_id, {"name": row.name})
    return row


def has_keys(parts: Parts) -> bool:
    """Whether an active key exists: asked before the server listens beyond this machine, and at first start."""
    now = parts.clock()
    with parts.catalog.read() as tx:
        return any(row.state(now) == "active" for row in access.list_keys(tx))


def identify(parts: Parts, token: str | None, via: str) -> Caller:
    """The caller behind a token; without one the anonymous, who may read if the house allows it.

    FreeholdError access-key-invalid for a token that is unknown, revoked or expired."""
    if not token:
        scopes = frozenset({Scope.READ}) if parts.anonymous_read else frozenset[Scope]()
        return Caller("anonymous", scopes, via)
    now = parts.clock()
    with parts.catalog.read() as tx:
        caller, row = access.identify(tx, now, token, via)
    if access.needs_touch(now, row):
        with parts.catalog.write() as tx:
            access.touch_key(tx, now, row)
    return caller


def open_session(parts: Parts, token: str) -> tuple[str, int]:
    """Trade a key for a console session: (session token, its end in UTC microseconds). The key itself is not kept."""
    now = parts.clock()
    with parts.catalog.write() as tx:
        _, row = access.identify(tx, now, token, "console")
        if row.kind != "api":
            raise FreeholdError("access-key-invalid", "a session does not open another: log in with the key itself")
        ends = now + SESSION_US if row.expires_at is None else min(now + SESSION_US, row.expires_at)
        made = access.create_key(tx, now, name=row.public_id, scopes=frozenset(row.scopes), kind="session", expires_at=ends)
        append_event(tx, now, f"key:{row.public_id}", "session.opened", row.public_id, {})
    return made.token, ends


def close_session(parts: Parts, token: str) -> None:
    """End a console session."""
    now = parts.clock()
    with parts.catalog.write() as tx:
        _, row = access.identify(tx, now, token, "console")
        access.revoke_key(tx, now, row.public_id)
