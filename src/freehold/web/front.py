"""What stands before every face of the server: who asks from where, under which URL, within which bounds; and the last net.

Rules: X-Forwarded-* counts only from loopback, or once server.base_url says that there is a proxy. A server bound to
loopback answers to loopback's names only, else any web page could reach it through a name of its own (DNS rebinding).
A path prefix (of base_url, or of a trusted X-Forwarded-Prefix) may come with the request or be stripped by the proxy: both
hold. Bodies are bounded. Every answer has a request id and safe headers; a bug becomes JSON, its traceback stays in the log.

It does not authenticate: each face does, by its own rules.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from freehold.errors import FreeholdError
from freehold.web.asgi import Answer, App, Header, Message, Receive, Scope, Send, header, json_answer, safe_header
from freehold.web.logs import ServerLog

_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_SAFE: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"server", b"freehold"),
)


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """`base_url` without a final slash, or empty; `loopback_only`: the server is bound to loopback; `max_body` in bytes."""

    base_url: str
    loopback_only: bool
    max_body: int


class Front:
    """ASGI middleware around `app`."""

    def __init__(self, app: App, settings: FrontSettings, log: ServerLog) -> None:
        self._app, self._settings, self._log = app, settings, log
        base = urlsplit(settings.base_url)
        self._prefix = base.path.rstrip("/")
        self._public_name = (base.hostname or "").lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._settings.max_body)
        began = time.monotonic()
        try:
            self._place(scope)
            exchange.check_length()
            await self._app(scope, exchange.receive, exchange.send)
        except FreeholdError as error:
            await exchange.fail(error)
        except Exception as error:
            self._log.bug(exchange.id, error)
            if exchange.status:
                raise  # the connection ends short of its length: the only way left to say that it failed
            await exchange.fail(FreeholdError("internal-bug", "the server failed in a way it should not", request=exchange.id))
        finally:
            client = scope.get("client")
            self._log.request(
                id=exchange.id,
                client=client[0] if client else "",
                who=scope.get("freehold.principal", ""),
                method=scope["method"],
                path=scope["path"],
                status=exchange.status,
                bytes=exchange.sent,
                ms=round((time.monotonic() - began) * 1000, 1),
            )

    def _place(self, scope: Scope) -> None:
        """Set scheme, host, client and root_path as the visitor sees them. FreeholdError server-host-unknown."""
        host = header(scope, b"host")
        match = _HOST.fullmatch(host or "")
        name = match["name"].lower() if match else ""
        ours = host is None or (name and (_is_loopback(name) or name == self._public_name))
        if self._settings.loopback_only and not ours:
            raise FreeholdError("server-host-unknown", f"this server does not go by {host!r}", host=host)
        prefix = self._prefix
        if self._settings.base_url or _is_loopback(scope["client"][0] if scope.get("client") else ""):
            prefix = self._forwarded(scope) or prefix
        if prefix:
            self._mount(scope, prefix)
        shown = header(scope, b"host") or ""
        if not _HOST.fullmatch(shown):
            server = scope.get("server") or ("localhost", None)
            shown = f"{server[0]}:{server[1]}" if server[1] else str(server[0])
        scope["freehold.public"] = self._settings.base_url or f"{scope['scheme']}://{shown}{scope.get('root_path', '')}"

    def _forwarded(self, scope: Scope) -> str:
        """Believe the proxy's headers; the prefix it names, if any."""
        scheme = (header(scope, b"x-forwarded-proto") or "").split(",")[0].strip().lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        host = (header(scope, b"x-forwarded-host") or "").split(",")[0].strip()
        if host and _HOST.fullmatch(host):
            scope["headers"] = [(k, v) for k, v in scope["headers"] if k != b"host"] + [(b"host", host.encode())]
        client = (header(scope, b"x-forwarded-for") or "").split(",")[-1].strip()
        if client and _is_address(client):
            scope["client"] = (client, 0)
        prefix = (header(scope, b"x-forwarded-prefix") or "").rstrip("/")
        return prefix if not self._settings.base_url and _PREFIX.fullmatch(prefix) else ""

    def _mount(self, scope: Scope, prefix: str) -> None:
        """Path and raw path begin with the prefix, as ASGI wants them under a root_path, whether or not the proxy cut it off."""
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        scope["root_path"] = prefix
        if scope["path"] != prefix and not scope["path"].startswith(prefix + "/"):
            scope["path"] = prefix + scope["path"]
            raw = prefix.encode() + raw
        scope["raw_path"] = raw


class _Exchange:
    """One request and its answer: counted, bounded, with the headers that every answer has."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body: int) -> None:
        given = header(scope, b"x-request-id") or ""
        self.id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.status, self.sent = 0, 0
        self._scope, self._receive, self._send, self._max = scope, receive, send, max_body
        self._taken = 0

    def check_length(self) -> None:
        length = header(self._scope, b"content-length") or ""
        if length.isdecimal() and int(length) > self._max:
            raise self._too_large()

    async def receive(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if self._taken > self._max:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {bytes(name).lower(): bytes(value) for name, value in headers}
            own = present.get(b"x-request-id")  # a face may know the request by an id of its own: one id, the same in the log
            self.id = own.decode("latin-1") if own else self.id
            more = [pair for pair in ((b"x-request-id", self.id.encode()), *_SAFE) if pair[0] not in present]
            message = {**message, "headers": headers + more}
        else:
            self.sent += message.get("count") or len(message.get("body", b""))
        await self._send(message)

    async def fail(self, error: FreeholdError) -> None:
        if not self.status:
            await failure(self._scope, error)(self._scope, self._receive, self.send)

    def _too_large(self) -> FreeholdError:
        return FreeholdError("server-too-large", f"the body is larger than {self._max} bytes", limit=self._max)


def failure(scope: Scope, error: FreeholdError) -> Answer:
    """A failure in the terms of the face that the path belongs to."""
    route = scope["path"].removeprefix(scope.get("root_path", ""))
    headers: list[Header] = [(b"connection", b"close")] if error.code == "server-too-large" else []
    if route.startswith("/v1/"):
        body = {"message": error.message, "type": error.row.openai, "code": error.code, "param": None}
        return json_answer({"error": body}, error.row.http, headers)
    headers.append((b"x-error-message", safe_header(error.message)))
    return json_answer({"error": error.message, "code": error.code, "hint": error.hint}, error.row.http, headers)


def public_url(scope: Scope) -> str:
    """This server's URL as the visitor may use it: the setting, else as the request was addressed; no final slash."""
    return str(scope["freehold.public"])


async def read_body(receive: Receive) -> bytes:
    """The whole body; its bound is the front's."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise FreeholdError("server-bad-request", "the client left before it had sent its request")
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def is_loopback_host(host: str) -> bool:
    """Whether binding to `host` keeps the server on this machine."""
    return _is_loopback(host.lower())


def _is_loopback(name: str) -> bool:
    bare = name.strip("[]")
    return bare == "localhost" or bare.endswith(".localhost") or (_is_address(bare) and ipaddress.ip_address(bare).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
