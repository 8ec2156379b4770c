"""The console's routes and what they have in common: visitor, forms' guards, failures as pages.

It is one application mounted at `/-/`, so that its middleware and its error pages stop at its own door.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from freehold.app import House
from freehold.errors import FreeholdError
from freehold.web.console import chat, download, events, keys, login, models, study, usage
from freehold.web.console.assets import asset
from freehold.web.console.forms import get, post, post_async
from freehold.web.console.page import render
from freehold.web.console.place import MOUNT, console_path, here
from freehold.web.console.visitor import VisitorMiddleware

_PAGES = (
    ("", models.show, "model"),
    ("/-/files", models.files, "files"),
    ("/-/license", models.license_text, "license"),
    ("/-/tensors", study.tensors, "tensors"),
)


def routes(house: House) -> list[BaseRoute]:
    """The console of `house`, to be mounted at the root of the one port."""
    inner = Starlette(
        routes=_routes(),
        exception_handlers={FreeholdError: _failed, HTTPException: _no_page, Exception: _bug},
    )
    inner.state.made = keys.Made()
    static = Route(f"{MOUNT}/static/{{name}}", asset, name="console-static")
    return [static, Mount(MOUNT, app=VisitorMiddleware(inner, house.parts), name="console")]


def _routes() -> list[BaseRoute]:
    found: list[BaseRoute] = [
        get("/", models.index, name="models"),
        get("/login", login.show, name="login"),
        post("/login", login.enter, name="enter", anyone=True),
        post("/logout", login.leave, name="leave"),
        Route("/chat", chat.show, name="chat"),
        post_async("/chat", chat.answer, name="answer"),
        post_async("/chat/stream", chat.stream, name="stream"),
        get("/keys", keys.index, name="keys"),
        post("/keys", keys.create, name="create-key"),
        get("/keys/{key}/revoke", keys.ask, name="ask-revoke"),
        post("/keys/{key}/revoke", keys.revoke, name="revoke-key"),
        get("/usage", usage.show, name="usage"),
        get("/events", events.index, name="events"),
        get("/events/chain", events.chain, name="chain"),
    ]
    for model in ("/models/{name}", "/models/{namespace}/{name}"):
        found += [get(f"{model}{suffix}", answer, name=name) for suffix, answer, name in _PAGES]
        found.append(Route(f"{model}/-/raw/{{revision}}/{{path:path}}", download.raw, name="raw"))
    return found


async def _failed(request: Request, error: Exception) -> Response:
    """A failure with a code. Who has no key yet is asked for one, and comes back to where they were."""
    assert isinstance(error, FreeholdError)  # noqa: S101 - registered for this class alone
    if error.code == "access-key-missing" and request.method in ("GET", "HEAD"):
        target = console_path(request, "/login") + "?" + _query(request)
        if "hx-request" in request.headers:
            return Response(status_code=401, headers={"HX-Redirect": target})
        return RedirectResponse(target, 303)
    if "text/event-stream" in request.headers.get("accept", ""):
        return chat.refusal(error)
    part = request.headers.get("hx-target")
    if part:
        return await asyncio.to_thread(render, request, "_failed.html", error.row.http, error=error, target=part)
    return await _error_page(request, error, error.row.http, None)


async def _no_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    code = {404: "console-page-not-found", 405: "console-method-refused"}.get(error.status_code)
    if code is None:
        return Response(status_code=error.status_code, headers=error.headers)
    what = f"no page at {here(request)}" if error.status_code == 404 else f"{request.method} is not for {here(request)}"
    return await _error_page(request, FreeholdError(code, what), error.status_code, dict(error.headers or {}))


async def _bug(request: Request, error: Exception) -> Response:
    bug = FreeholdError("internal-bug", f"{type(error).__name__} while answering {here(request)}")
    return await _error_page(request, bug, 500, None)


async def _error_page(request: Request, error: FreeholdError, status: int, headers: dict[str, str] | None) -> Response:
    return await asyncio.to_thread(
        render, request, "error.html", status, headers=headers, error=error, number=status, login=error.row.http == 401
    )


def _query(request: Request) -> str:
    return urlencode({"return": here(request)})
