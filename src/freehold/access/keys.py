"""Keys: a public id and a secret of 256 random bits, of which only the sha256 is stored.

A plain hash is enough for a secret that nobody chose: there is no dictionary to try. Comparison is in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, Row, text

from freehold.errors import FreeholdError
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.ids import uuid7

_KEY = re.compile(r"fh_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_TOUCH_EVERY_US = 600_000_000


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it may be shown: without its secret. Times in UTC microseconds."""

    public_id: str
    name: str
    principal: str
    kind: str
    scopes: tuple[Scope, ...]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None

    def state(self, now: int) -> str:
        """active, revoked or expired."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at its making: the only moment at which `token` exists in clear."""

    row: KeyRow
    token: str


def _row(r: Row[tuple[object, ...]]) -> KeyRow:
    scopes = tuple(Scope(s) for s in r.scopes.split())
    return KeyRow(
        r.public_id, r.name, r.principal, r.kind, scopes, r.created_at, r.expires_at, r.revoked_at, r.last_used_at
    )  # fmt: skip


_SELECT = (
    "SELECT k.public_id, k.name, p.name AS principal, k.kind, k.scopes, k.created_at, k.expires_at, k.revoked_at, "
    "k.last_used_at, k.secret_sha256 FROM keys k JOIN principals p ON p.id = k.principal_id "
)


def create_key(
    tx: Connection, at: int, *, name: str, scopes: frozenset[Scope], principal: str = "owner", kind: str = "api",
    expires_at: int | None = None,
) -> NewKey:  # fmt: skip
    """Make a key for `principal` (made if new). The token is `fh_<public id>_<secret>`."""
    sql = "INSERT INTO principals (uuid, kind, name, created_at) VALUES (:u, 'user', :n, :at) ON CONFLICT (name) DO NOTHING"
    tx.execute(text(sql), {"u": uuid7(at), "n": principal, "at": at})
    public = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    insert = (
        "INSERT INTO keys (public_id, secret_sha256, principal_id, name, kind, scopes, created_at, expires_at) "
        "SELECT :public, :secret, id, :name, :kind, :scopes, :at, :expires FROM principals WHERE name = :principal"
    )
    values = {
        "public": public, "secret": hashlib.sha256(secret.encode()).hexdigest(), "name": name, "kind": kind,
        "scopes": " ".join(sorted(scopes)), "at": at, "expires": expires_at, "principal": principal,
    }  # fmt: skip
    tx.execute(text(insert), values)
    made = tx.execute(text(_SELECT + "WHERE k.public_id = :p"), {"p": public}).one()
    return NewKey(_row(made), f"fh_{public}_{secret}")


def list_keys(tx: Connection, *, kind: str = "api") -> list[KeyRow]:
    """Oldest first, revoked ones included."""
    rows = tx.execute(text(_SELECT + "WHERE k.kind = :k ORDER BY k.created_at, k.public_id"), {"k": kind})
    return [_row(r) for r in rows]


def revoke_key(tx: Connection, at: int, public_id: str) -> KeyRow:
    """End a key at once; sessions opened with it end too. FreeholdError access-key-not-found."""
    found = tx.execute(text(_SELECT + "WHERE k.public_id = :p"), {"p": public_id}).first()
    if found is None:
        raise FreeholdError("access-key-not-found", f"no key has the id {public_id!r}", key=public_id)
    sql = "UPDATE keys SET revoked_at = COALESCE(revoked_at, :at) WHERE public_id = :p OR (kind = 'session' AND name = :p)"
    tx.execute(text(sql), {"at": at, "p": public_id})
    return _row(tx.execute(text(_SELECT + "WHERE k.public_id = :p"), {"p": public_id}).one())


def identify(tx: Connection, now: int, token: str, via: str) -> tuple[Caller, KeyRow]:
    """The caller whose key this is. FreeholdError access-key-invalid if unknown, revoked or expired: all look the same."""
    match = _KEY.fullmatch(token)
    found = tx.execute(text(_SELECT + "WHERE k.public_id = :p"), {"p": match[1]}).first() if match else None
    if match is None or found is None:
        raise FreeholdError("access-key-invalid", "the API key is not valid here")
    given = hashlib.sha256(match[2].encode()).hexdigest()
    row = _row(found)
    if not hmac.compare_digest(given, found.secret_sha256) or row.state(now) != "active":
        raise FreeholdError("access-key-invalid", "the API key is not valid here")
    return Caller(f"key:{row.name if row.kind == 'session' else row.public_id}", frozenset(row.scopes), via), row


def touch_key(tx: Connection, now: int, row: KeyRow) -> None:
    """Note that the key was used; `needs_touch` keeps this off the read path."""
    tx.execute(text("UPDATE keys SET last_used_at = :at WHERE public_id = :p"), {"at": now, "p": row.public_id})


def needs_touch(now: int, row: KeyRow) -> bool:
    """Whether last use was noted so long ago (ten minutes) that it is worth a write."""
    return row.last_used_at is None or now - row.last_used_at > _TOUCH_EVERY_US
