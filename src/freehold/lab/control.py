"""The control door of an upstream: POST /-/lab/VERB with a JSON object, GET /-/lab/state and /-/lab/requests.

It listens on a port of its own, so that an upstream that plays dead can still be told to come back, and asks for the
token that was made at the start: whoever may make an origin lie must have been told. Its client's side is `tell`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from freehold.errors import FreeholdError
from freehold.lab.site import Site
from freehold.lab.verbs import checked

_MOST = 1 << 20


def control_app(site: Site, token: str) -> Starlette:
    """The application; every route asks for `Authorization: Bearer TOKEN`."""

    async def act(request: HttpRequest) -> dict[str, Any]:
        name, body = request.path_params["verb"], bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST:
                raise FreeholdError("lab-argument-invalid", "the body is longer than 1 MiB", verb=name)
        return await run_in_threadpool(_obey, site, name, bytes(body))

    async def state(_: HttpRequest) -> dict[str, Any]:
        return await run_in_threadpool(site.describe)

    async def requests(_: HttpRequest) -> dict[str, Any]:
        return {"requests": [r.as_dict() for r in site.requests]}

    def door(act: Callable[[HttpRequest], Awaitable[dict[str, Any]]]) -> Callable[[HttpRequest], Awaitable[JSONResponse]]:
        async def answer(request: HttpRequest) -> JSONResponse:
            try:
                _authorise(request, token)
                return JSONResponse(await act(request))
            except FreeholdError as error:
                return JSONResponse({"error": error.as_dict()}, error.row.http)

        return answer

    routes = [Route("/-/lab/state", door(state)), Route("/-/lab/requests", door(requests))]
    return Starlette(routes=[*routes, Route("/-/lab/{verb}", door(act), methods=["POST"])])


def _authorise(request: HttpRequest, token: str) -> None:
    if not hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {token}".encode()):
        raise FreeholdError("lab-control-refused", "the control token is missing or wrong")


def _obey(site: Site, name: str, body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body or b"{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise FreeholdError("lab-argument-invalid", "the body must be a JSON object", verb=name)
    verb, given = checked(name, values)
    return {"done": name, "result": getattr(site, verb.method)(**given)}
