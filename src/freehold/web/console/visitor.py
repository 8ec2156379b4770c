"""Who visits: the session cookie becomes a Caller, and a form is taken only from a page of our own.

Two guards stand before every POST. The token in the form is an HMAC keyed by the visitor's cookie, which no other site can
read and which stays out of scripts' reach: a double submit that is bound to the session. And the Origin header, which
every browser sends with a POST, must be ours. A session that ended (or whose key was revoked) makes its bearer anonymous.

It does not decide what a caller may do: flows do.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freehold.errors import FreeholdError
from freehold.flows import keys
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller
from freehold.web.console.place import PARTS, base_path, console_path, public_origins

SESSION, LOGIN, THEME = "freehold_session", "freehold_login", "freehold_theme"
_LOGIN_SECONDS = 3600
_VISITOR = "freehold.visitor"

#: Everything comes from this server, nothing runs inline, nobody may frame a page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# same-origin, not no-referrer: under the latter browsers send `Origin: null` with our own forms.
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """`cookie` is the session token, or the nonce of the login page; empty if the browser has neither. `ended`: it came
    with a session that is no longer valid."""

    caller: Caller
    cookie: str
    ended: bool

    @property
    def known(self) -> bool:
        return self.caller.principal != "anonymous"

    @property
    def csrf(self) -> str:
        """What a form of this visitor must carry."""
        return hmac.new(self.cookie.encode(), b"freehold-console-form", hashlib.sha256).hexdigest()


def visitor(request: Request) -> Visitor:
    """The visitor that the middleware found."""
    found: Visitor = request.scope[_VISITOR]
    return found


class VisitorMiddleware:
    """Finds the visitor, and puts the security headers on every answer; takes an ended session's cookie back."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app, self._parts = app, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[PARTS] = self._parts
        request = Request(scope)
        found = await asyncio.to_thread(self._find, request)
        scope[_VISITOR] = found

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if found.ended and not any(v.startswith(f"{SESSION}=") for v in headers.getlist("set-cookie")):
                    gone = Response()
                    _forget(request, gone, SESSION)
                    headers.append("set-cookie", gone.headers["set-cookie"])
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _find(self, request: Request) -> Visitor:
        session, ended = request.cookies.get(SESSION, ""), False
        if session:
            try:
                return Visitor(keys.identify(self._parts, session, "console"), session, ended=False)
            except FreeholdError as error:
                # Any other failure is the house's, not the session's: the page that asks next reports it.
                ended = error.code == "access-key-invalid"
        return Visitor(keys.identify(self._parts, None, "console"), request.cookies.get(LOGIN, ""), ended)


def check_form(request: Request, token: str) -> None:
    """FreeholdError console-form-refused unless the form came from a page that this visitor was given."""
    found = visitor(request)
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() not in public_origins(request):
        raise FreeholdError("console-form-refused", f"the form was sent from {origin!r}, not from this console")
    if not found.cookie or not hmac.compare_digest(token.encode(), found.csrf.encode()):
        raise FreeholdError("console-form-refused", "the form does not carry this session's token")


def start_login(request: Request, response: Response) -> Visitor:
    """Give the visitor of the login page a nonce, so that its form has something to be bound to."""
    found = visitor(request)
    if not found.known and not found.cookie:
        found = Visitor(found.caller, secrets.token_urlsafe(24), found.ended)
        request.scope[_VISITOR] = found
        _keep(request, response, LOGIN, found.cookie, _LOGIN_SECONDS)
    return found


def start_session(request: Request, response: Response, token: str, seconds: int) -> None:
    """Hand over the session; the nonce has done its work."""
    _keep(request, response, SESSION, token, seconds)
    _forget(request, response, LOGIN)


def end_session(request: Request, response: Response) -> None:
    """Take the cookie back; the session itself is closed by the flow."""
    _forget(request, response, SESSION)


def safe_return(request: Request, target: str | None) -> str:
    """`target` if it is a path of this console, else the console's first page: never another site."""
    home = console_path(request, "/")
    if not target or not target.startswith(home) or any(c in target for c in "\\\r\n\t"):
        return home
    parts = urlsplit(target)
    own = not parts.scheme and not parts.netloc and ".." not in parts.path.split("/") and "//" not in parts.path
    return target if own else home


def _keep(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name, value, max_age=seconds, path=_cookie_path(request), httponly=True, samesite="strict", secure=_secure(request)
    )  # fmt: skip


def _forget(request: Request, response: Response, name: str) -> None:
    response.delete_cookie(name, path=_cookie_path(request), httponly=True, samesite="strict", secure=_secure(request))


def _cookie_path(request: Request) -> str:
    return f"{base_path(request)}/-/"


def _secure(request: Request) -> bool:
    return any(origin.startswith("https://") for origin in public_origins(request))
