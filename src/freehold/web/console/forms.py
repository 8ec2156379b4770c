"""Routes of pages and of forms; a form is read and checked before the page that asked for them sees a field.

Every POST of the console is made by `post`, so none can forget the guards. Fields come as a browser's plain form sends
them; files are not taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from freehold.errors import FreeholdError
from freehold.web.console.visitor import check_form, visitor
from freehold.web.front import read_body

_MEDIA = "application/x-www-form-urlencoded"
_MAX_FIELDS = 100
#: Name of the field that carries the token.
TOKEN = "csrf"  # noqa: S105 - the name of a field


@dataclass(frozen=True, slots=True)
class Form:
    """Fields in the order they came; a name may stand more than once."""

    fields: tuple[tuple[str, str], ...]

    def get(self, name: str, default: str = "") -> str:
        return next((v for k, v in self.fields if k == name), default)

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(v for k, v in self.fields if k == name)


def get(path: str, answer: Callable[[Request], Response], *, name: str) -> Route:
    """The route that answers a look at a page, in a thread of the server's one executor."""

    async def looked(request: Request) -> Response:
        return await asyncio.to_thread(answer, request)

    return Route(path, looked, name=name)


def post(path: str, answer: Callable[[Request, Form], Response], *, name: str, anyone: bool = False) -> Route:
    """The route that answers a form: read and checked first. Only for who has a session, unless it is for `anyone`."""

    async def guarded(request: Request) -> Response:
        return await asyncio.to_thread(answer, request, await checked_form(request, anyone))

    return Route(path, guarded, methods=["POST"], name=name)


def post_async(path: str, answer: Callable[[Request, Form], Awaitable[Response]], *, name: str) -> Route:
    """The same for an answer that streams."""

    async def guarded(request: Request) -> Response:
        return await answer(request, await checked_form(request, anyone=False))

    return Route(path, guarded, methods=["POST"], name=name)


async def checked_form(request: Request, anyone: bool) -> Form:
    """The form, if this visitor was given it.

    Raises access-key-missing, console-form-refused, server-bad-request, server-too-large."""
    if not anyone and not visitor(request).known:
        raise FreeholdError("access-key-missing", "your session has ended, or never began", hint="Log in, then do it again.")
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != _MEDIA:
        raise FreeholdError("server-bad-request", f"a form must be sent as {_MEDIA}, not {media or 'nothing'}")
    body = await read_body(request.receive)
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise FreeholdError("server-bad-request", f"the form cannot be read: {error}") from error
    form = Form(tuple((k, v.replace("\r\n", "\n")) for k, v in pairs))
    check_form(request, form.get(TOKEN))
    return form
