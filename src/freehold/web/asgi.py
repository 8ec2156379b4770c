"""The shapes of ASGI that the faces share: plain JSON and empty responses, query strings, header look-ups.

The hub's routes answer thousands of small requests a second, so they are written against ASGI itself; this is all that they need
of a framework. It does not route and knows no product.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response in memory."""

    status: int
    body: bytes = b""
    headers: Sequence[Header] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": self.body if scope["method"] != "HEAD" else b""})


def json_answer(data: Any, status: int = 200, headers: Sequence[Header] = ()) -> Answer:
    """`data` as JSON in UTF-8."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    fixed = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    return Answer(status, body, [*fixed, *headers])


def redirect(location: str, status: int = 307) -> Answer:
    """To `location`, which must be ASCII already."""
    return Answer(status, b"", [(b"location", safe_header(location)), (b"content-length", b"0")])


def header(scope: Scope, name: bytes) -> str | None:
    """The first header `name` (lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None


def safe_header(text: str) -> bytes:
    """`text` as one header value: printable ASCII; anything else, line ends included, becomes `?`."""
    return bytes(c if 32 <= c < 127 else 63 for c in text.encode("ascii", "replace"))


def bearer(scope: Scope) -> str | None:
    """The token of `Authorization: Bearer ...`; None without one."""
    value = header(scope, b"authorization") or ""
    kind, _, token = value.partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None
