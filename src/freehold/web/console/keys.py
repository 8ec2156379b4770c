"""Keys: listed, made and revoked.

A new key's secret is shown on one page, once: the answer to the form is a redirect with a nonce, and the page that it leads
to takes the secret out of memory for good. A reload finds nothing, makes nothing, and the secret stands in no URL, no
database and no browser cache.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from freehold.errors import FreeholdError
from freehold.flows import keys
from freehold.flows.keys import parse_scopes
from freehold.nouns.caller import Scope
from freehold.web.console.forms import Form
from freehold.web.console.page import render
from freehold.web.console.place import console_path, parts_of
from freehold.web.console.visitor import end_session, visitor

_DAY_US = 86_400_000_000
_WAIT_US = 300_000_000
_MOST = 100

#: What a key may be made to allow, in words.
SCOPES = (
    (Scope.READ, "See and download models"),
    (Scope.CHAT, "Ask models, here and through the OpenAI API"),
    (Scope.WRITE, "Pull and remove models"),
    (Scope.ADMIN, "Everything, keys included"),
)
#: How long a key may last: days, in words.
LIVES = ((0, "until it is revoked"), (1, "for a day"), (30, "for 30 days"), (90, "for 90 days"), (365, "for a year"))


@dataclass(frozen=True, slots=True)
class _Waiting:
    token: str
    name: str
    cookie: str
    until: int


class Made:
    """New secrets on their way from the form to the one page that shows them; each is taken once, by the same session."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._lock = threading.Lock()

    def put(self, token: str, name: str, cookie: str, now: int) -> str:
        """Keep `token` for at most five minutes; the nonce to take it with."""
        nonce = secrets.token_urlsafe(18)
        with self._lock:
            self._drop(now)
            while len(self._waiting) >= _MOST:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[nonce] = _Waiting(token, name, cookie, now + _WAIT_US)
        return nonce

    def take(self, nonce: str, cookie: str, now: int) -> tuple[str, str] | None:
        """(secret, name of the key), or None if it was taken, is another's or waited too long."""
        with self._lock:
            self._drop(now)
            found = self._waiting.get(nonce)
            if found is None or not secrets.compare_digest(found.cookie.encode(), cookie.encode()):
                return None
            del self._waiting[nonce]
        return found.token, found.name

    def _drop(self, now: int) -> None:
        self._waiting = {k: v for k, v in self._waiting.items() if v.until > now}


def index(request: Request) -> Response:
    """GET /-/keys, with `?made=<nonce>` right after a key was made."""
    parts, found = parts_of(request), visitor(request)
    rows = keys.list_keys(parts, found.caller)
    nonce = request.query_params.get("made")
    made = _made(request).take(nonce, found.cookie, parts.clock()) if nonce else None
    return _list(request, rows, made=made, too_late=bool(nonce) and made is None)


def create(request: Request, form: Form) -> Response:
    """POST /-/keys: name, scope (any number), days."""
    parts, found = parts_of(request), visitor(request)
    now = parts.clock()
    name = form.get("name").strip()
    try:
        days = _checked(name, form)
        expires = now + days * _DAY_US if days else None
        made = keys.create_key(parts, found.caller, name, parse_scopes(form.all("scope")), expires_at=expires)
    except FreeholdError as error:
        if error.row.http != 400:
            raise
        return _list(request, keys.list_keys(parts, found.caller), error=error, typed=form)
    nonce = _made(request).put(made.token, name, found.cookie, now)
    return RedirectResponse(f"{console_path(request, '/keys')}?made={nonce}", 303)


def ask(request: Request) -> Response:
    """GET /-/keys/{key}/revoke: what revoking this key would end."""
    parts, found = parts_of(request), visitor(request)
    row = _row(request, request.path_params["key"])
    own = found.caller.principal == f"key:{row.public_id}"
    return render(request, "revoke.html", row=row, state=row.state(parts.clock()), own=own, section="keys")


def revoke(request: Request, _form: Form) -> Response:
    """POST /-/keys/{key}/revoke. Revoking one's own key ends one's own session."""
    parts, found = parts_of(request), visitor(request)
    row = keys.revoke_key(parts, found.caller, request.path_params["key"])
    response = RedirectResponse(console_path(request, "/keys"), 303)
    if found.caller.principal == f"key:{row.public_id}":
        response = RedirectResponse(console_path(request), 303)
        end_session(request, response)
    return response


def _checked(name: str, form: Form) -> int:
    """The days that the key is to live; FreeholdError console-field-invalid."""
    if not name or len(name) > 80 or not name.isprintable():
        raise FreeholdError("console-field-invalid", "a key needs a name of 1 to 80 printable characters")
    if not form.all("scope"):
        raise FreeholdError("console-field-invalid", "a key needs at least one scope")
    for days, _ in LIVES:
        if form.get("days", "0") == str(days):
            return days
    raise FreeholdError("console-field-invalid", f"not a length of life for a key: {form.get('days')!r}")


def _row(request: Request, public_id: str) -> keys.KeyRow:
    for row in keys.list_keys(parts_of(request), visitor(request).caller):
        if row.public_id == public_id:
            return row
    raise FreeholdError("access-key-not-found", f"no key has the id {public_id!r}", key=public_id)


def _list(
    request: Request, rows: Sequence[keys.KeyRow], *, made: tuple[str, str] | None = None, too_late: bool = False,
    error: FreeholdError | None = None, typed: Form | None = None,
) -> Response:  # fmt: skip
    now = parts_of(request).clock()
    listed = [(row, row.state(now)) for row in reversed(rows)]
    listed.sort(key=lambda pair: pair[1] != "active")
    return render(
        request, "keys.html", error.row.http if error else 200, section="keys", listed=listed, made=made, too_late=too_late,
        error=error, scopes=SCOPES, lives=LIVES, name=typed.get("name") if typed else "",
        chosen=set(typed.all("scope")) if typed else {"read", "chat"}, days=typed.get("days") if typed else "0",
    )  # fmt: skip


def _made(request: Request) -> Made:
    found: Made = request.app.state.made
    return found
