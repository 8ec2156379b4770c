"""The hub's door: parses the URL, calls the route, writes failures in the Hub API's terms.

Reading only: whatever would change something answers 501 with a reason, since a client that was told 404 or was shown a page
of HTML cannot say what is wrong.
"""

from __future__ import annotations

from urllib.parse import quote

from freehold.errors import FreeholdError
from freehold.flows.parts import Parts
from freehold.web.asgi import Answer, App, Receive, Scope, Send, json_answer, redirect
from freehold.web.hub import api
from freehold.web.hub.errors import error_answer
from freehold.web.hub.house import HubHouse
from freehold.web.hub.resolve import resolve
from freehold.web.hub.urls import HubUrl, parse_url

#: (methods, path, what it is): the list of routes that the reference is made from.
ROUTES = (
    ("GET", "/api/models", "List models: search, author, filter, sort, direction, limit, cursor, expand, full."),
    ("GET", "/api/models/{id}", "One model at its main branch: expand, blobs, securityStatus."),
    ("GET", "/api/models/{id}/revision/{revision}", "One model at a branch, tag, ref or commit."),
    ("GET", "/api/models/{id}/tree/{revision}[/{path}]", "Files and folders: recursive, expand, limit, cursor."),
    ("POST", "/api/models/{id}/paths-info/{revision}", "Those of the given paths that exist."),
    ("GET", "/api/models/{id}/refs", "Branches and tags: include_prs."),
    ("GET", "/api/models/{id}/commits/{revision}", "History: limit, p."),
    ("GET", "/api/models/{id}/auth-check[/write]", "200 if the caller may read (write)."),
    ("GET", "/api/whoami-v2", "Whose key this is."),
    ("GET", "/api/agent-harnesses", "An empty registry, so that clients do not ask elsewhere."),
    ("HEAD", "/api/telemetry/{path}", "200; nothing is recorded."),
    ("HEAD, GET", "/{id}/resolve/{revision}/{path}", "One file, whole or in part."),
    ("GET", "/{id}/raw/{revision}/{path}", "The same."),
    ("GET", "/{id}", "To the model's page in the console."),
)
_READING = ("GET", "HEAD")


def hub(parts: Parts) -> App:
    """The Hub API over `parts` as an ASGI application; also datasets', which this house may hold none of."""
    house = HubHouse(parts)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            url = parse_url(_raw_path(scope))
            _check_method(scope, url)
            if url is not None and url.action in ("resolve", "raw"):
                await resolve(house, url, scope, receive, send)
                return
            answer = await _answer(house, url, scope, receive)
        except FreeholdError as error:
            answer = error_answer(error)
        await answer(scope, receive, send)

    return app


def _raw_path(scope: Scope) -> str:
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.decode("latin-1").removeprefix(scope.get("root_path", ""))


def _check_method(scope: Scope, url: HubUrl | None) -> None:
    method = scope["method"]
    allowed = ("POST",) if url is not None and url.action == "paths-info" else _READING
    if method in allowed:
        return
    if url is None and method in ("POST", "PUT", "PATCH", "DELETE"):
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        raise FreeholdError("hub-read-only", f"{method} {path}: the Hub API of this server only reads", method=method)
    raise FreeholdError(
        "hub-method-not-allowed", f"the route takes {', '.join(allowed)}", method=method, allow=", ".join(allowed)
    )


async def _answer(house: HubHouse, url: HubUrl | None, scope: Scope, receive: Receive) -> Answer:
    match url:
        case HubUrl(action="list"):
            return await api.list_repos(house, url, scope)
        case HubUrl(action="info" | "revision", api=True):
            return await api.info(house, url, scope)
        case HubUrl(action="tree", api=True):
            return await api.tree(house, url, scope)
        case HubUrl(action="paths-info"):
            return await api.paths_info(house, url, scope, receive)
        case HubUrl(action="refs"):
            return await api.refs(house, url, scope)
        case HubUrl(action="commits", api=True):
            return await api.commits(house, url, scope)
        case HubUrl(action="auth-check"):
            return await api.auth_check(house, url, scope)
        case HubUrl(action="whoami"):
            return await api.identity(house, scope)
        case HubUrl(action="harnesses" | "telemetry"):
            return json_answer({})
        case HubUrl(action="info" | "tree" | "blob" | "commits", kind="model", api=False):
            return redirect(f"{scope.get('root_path', '')}/-/models/{url.repo_id}", 302)
    raise FreeholdError("hub-no-route", f"no such route: {scope['path']!r}")
