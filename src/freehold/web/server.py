"""The one port: hub, OpenAI API and console joined into one ASGI application.

The first segment of the path chooses the face: `/-/` console, `/v1` OpenAI, everything else the hub, whose URLs begin with a
model's name (the reserved ones are nouns.ids.RESERVED). Faces do not know one another.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from starlette.routing import Router

from freehold.app import House
from freehold.errors import FreeholdError
from freehold.flows import serving
from freehold.flows.parts import Parts
from freehold.web import console, openai
from freehold.web.asgi import Answer, App, Receive, Scope, Send, json_answer, redirect
from freehold.web.front import Front, FrontSettings, is_loopback_host
from freehold.web.hub import ROUTES as HUB_ROUTES
from freehold.web.hub import hub
from freehold.web.logs import ServerLog

#: Threads for everything that blocks: databases, opening and decoding files.
THREADS = 8
_ICON = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="#2f6f4f" d="M8 1 1 7v8h5v-5h4v5h5V7z"/></svg>'

_ROUTES = (
    ("GET, HEAD", "/", "To the console."),
    ("GET, HEAD", "/healthz", "200 while the home can be read."),
    ("GET, HEAD", "/v1/models", "Models that can be chatted with."),
    ("GET, HEAD", "/v1/models/{model}", "One of them."),
    ("POST", "/v1/chat/completions", "A chat answer, streamed or whole, metered."),
    ("POST", "/v1/completions", "A completion of plain text, streamed or whole, metered."),
    ("GET", "/-/", "Console: the models that are kept."),
    ("GET", "/-/models/{id}", "Console: what one model is."),
    ("GET", "/-/chat", "Console: chat."),
    ("GET", "/-/keys", "Console: keys."),
    ("GET", "/-/usage", "Console: what was used."),
    ("GET", "/-/events", "Console: what happened."),
    ("GET", "/-/login", "Console: log in with a key."),
)


def build(house: House) -> App:
    """The server of `house` as an ASGI application with lifespan."""
    settings = house.settings.server
    faces: dict[str, App] = {"": hub(house.parts), "-": Router(console.routes(house)), "v1": Router(openai.routes(house))}
    front = FrontSettings(house.parts.base_url, is_loopback_host(settings.host), settings.max_body_bytes)
    log = ServerLog(house.parts.home.logs)
    served = Front(_Faces(house.parts, faces), front, log)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send, house.parts, log)
        elif scope["type"] == "http":
            await served(scope, receive, send)

    return app


def route_table() -> list[tuple[tuple[str, ...], str, str]]:
    """(methods, path, what it is) of the routes of the port that clients and people use, for the reference."""
    return [(tuple(methods.split(", ")), path, what) for methods, path, what in (*_ROUTES, *HUB_ROUTES)]


class _Faces:
    def __init__(self, parts: Parts, faces: dict[str, App]) -> None:
        self._parts, self._faces = parts, faces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        first, _, _ = scope["path"].removeprefix(root).removeprefix("/").partition("/")
        own = await self._own(scope, first, root)
        if own is not None:
            await own(scope, receive, send)
            return
        await self._faces.get(first, self._faces[""])(scope, receive, send)

    async def _own(self, scope: Scope, first: str, root: str) -> Answer | None:
        """What belongs to no face."""
        if scope["path"].removeprefix(root) not in (f"/{first}", "") or scope["method"] not in ("GET", "HEAD"):
            return None
        match first:
            case "" | "-":
                return redirect(f"{root}/-/")
            case "healthz":
                return await _health(self._parts)
            case "favicon.ico":
                headers = ((b"content-type", b"image/svg+xml"), (b"cache-control", b"max-age=86400"))
                return Answer(200, _ICON, (*headers, (b"content-length", str(len(_ICON)).encode())))
            case "robots.txt":
                body = b"User-agent: *\nDisallow: /\n"
                return Answer(200, body, ((b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())))
        return None


async def _health(parts: Parts) -> Answer:
    """200 while the catalog can be read."""
    try:
        await asyncio.get_running_loop().run_in_executor(None, serving.check, parts)
    except FreeholdError as error:
        return json_answer({"status": "failing", "code": error.code}, 503)
    return json_answer({"status": "ok", "version": version("freehold")})


async def _lifespan(receive: Receive, send: Send, parts: Parts, log: ServerLog) -> None:
    """One bounded executor for the life of the server; at its end engines stop and the log is written out."""
    await receive()
    executor = ThreadPoolExecutor(THREADS, thread_name_prefix="freehold")
    asyncio.get_running_loop().set_default_executor(executor)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await serving.stop_engines(parts)
    log.flush()
    executor.shutdown(wait=False)
    await send({"type": "lifespan.shutdown.complete"})
