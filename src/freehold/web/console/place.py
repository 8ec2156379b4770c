"""Where the console stands: links and origins that hold behind a reverse proxy and under a path of its own.

The front has already said under which path and host name the visitor came; all links are paths below that, so that they
hold whatever the name.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from starlette.requests import Request

from freehold.flows.parts import Parts
from freehold.web import front

#: The path of the console on the one port.
MOUNT = "/-"
#: Where the console's middleware puts the parts of the house.
PARTS = "freehold.parts"


def parts_of(request: Request) -> Parts:
    """The parts of the house that this console shows."""
    parts: Parts = request.scope[PARTS]
    return parts


def base_path(request: Request) -> str:
    """The path of the whole server as the browser sees it: empty, or `/hub`."""
    return str(request.scope.get("root_path", "")).removesuffix(MOUNT)


def console_path(request: Request, path: str = "/") -> str:
    """The path of a page of the console: `/models/a/b` -> `/hub/-/models/a/b`."""
    return f"{base_path(request)}{MOUNT}{path}"


def here(request: Request) -> str:
    """The path and query of this very page, as the browser sees it."""
    path = str(request.scope["path"]).removeprefix(str(request.scope.get("root_path", "")))
    return console_path(request, quote(path)) + (f"?{request.url.query}" if request.url.query else "")


def public_url(request: Request) -> str:
    """The server's URL for use elsewhere (snippets)."""
    return front.public_url(request.scope)


def public_origins(request: Request) -> frozenset[str]:
    """The origins from which a form may come: that of this very request, and that of the public URL."""
    public = urlsplit(public_url(request))
    asked = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    return frozenset({asked.lower(), f"{public.scheme}://{public.netloc}".lower()})


def quoted(path: str) -> str:
    """A file's path inside a URL."""
    return quote(path, safe="/")
