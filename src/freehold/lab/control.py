"""The control door of an upstream: POST /-/lab/VERB with a JSON object, GET /-/lab/state and /-/lab/requests.

It listens on a port of its own, so that an upstream that plays dead can still be told to come back, and asks for the
token that was made at the start: whoever may make an origin lie must have been told. `tell`, `ask` are its client's side.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from freehold.errors import FreeholdError
from freehold.lab.site import Site
from freehold.lab.verbs import checked

_SECONDS = 30.0
_MOST = 1 << 20


def control_app(site: Site, token: str) -> Starlette:
    """The application; every route asks for `Authorization: Bearer TOKEN`."""

    async def act(request: HttpRequest) -> JSONResponse:
        body = await request.body()
        return await _reply(request, token, partial(_obey, site, request.path_params["verb"], body))

    async def state(request: HttpRequest) -> JSONResponse:
        return await _reply(request, token, site.describe)

    async def requests(request: HttpRequest) -> JSONResponse:
        return await _reply(request, token, lambda: {"requests": [r.as_dict() for r in site.requests]})

    routes = [Route("/-/lab/state", state), Route("/-/lab/requests", requests), Route("/-/lab/{verb}", act, methods=["POST"])]
    return Starlette(routes=routes)


def _obey(site: Site, name: str, body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body or b"{}")
    except ValueError:
        values = None
    if not isinstance(values, dict) or len(body) > _MOST:
        raise FreeholdError("lab-argument-invalid", "the body must be a JSON object", verb=name)
    verb, given = checked(name, values)
    result = getattr(site, verb.method)(**given)
    return {"done": name, "result": result}


async def _reply(request: HttpRequest, token: str, act: Callable[[], dict[str, Any]]) -> JSONResponse:
    try:
        _authorise(request, token)
        return JSONResponse(await run_in_threadpool(act))
    except FreeholdError as error:
        return JSONResponse({"error": error.as_dict()}, error.row.http)


def _authorise(request: HttpRequest, token: str) -> None:
    if not hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {token}".encode()):
        raise FreeholdError("lab-control-refused", "the control token is missing or wrong")


def tell(control_url: str, token: str, verb: str, values: dict[str, Any]) -> dict[str, Any]:
    """Have an upstream obey; FreeholdError lab-control-unreachable, or what it answered."""
    return _call("POST", control_url, token, verb, checked(verb, values)[1])


def ask(control_url: str, token: str, what: str) -> dict[str, Any]:
    """`what` is state or requests; FreeholdError as for `tell`."""
    return _call("GET", control_url, token, what, None)


def _call(method: str, url: str, token: str, word: str, values: dict[str, Any] | None) -> dict[str, Any]:
    import http.client

    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise FreeholdError("lab-control-unreachable", f"not a control URL: {url!r}", url=url)
    try:
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=_SECONDS)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request(
                method, f"/-/lab/{quote(word)}", json.dumps(values).encode() if values is not None else None, headers
            )
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FreeholdError(
            "lab-control-unreachable", f"no upstream's control door answers at {url}: {error}", url=url
        ) from error
    if not isinstance(answer, dict):
        raise FreeholdError("lab-control-unreachable", f"{url} is not an upstream's control door", url=url)
    failed = answer.get("error")
    if failed is not None:
        code = failed.get("code", "") if isinstance(failed, dict) else ""
        message = failed.get("message", "") if isinstance(failed, dict) else str(failed)
        raise FreeholdError(code, message)
    return answer
