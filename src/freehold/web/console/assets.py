"""The console's own files: style, scripts, icons; read once from the package and served with a name for their content.

Why in memory: they are few and small, and the package may be a zip. Their URL carries a piece of their hash, so a browser
may keep them for ever and still sees a new version at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, media type and the first 12 hex digits of its sha256."""

    body: bytes
    media: str
    version: str


@cache
def assets() -> dict[str, Asset]:
    """All of them, by name."""
    found = {}
    for entry in (resources.files("freehold.web.console") / "static").iterdir():
        media = _TYPES.get(entry.name.rpartition(".")[2])
        if media:
            body = entry.read_bytes()
            found[entry.name] = Asset(body, media, hashlib.sha256(body).hexdigest()[:12])
    return found


async def asset(request: Request) -> Response:
    """GET /-/static/{name}: kept for ever if asked for by its version, else asked for again each time."""
    found = assets().get(request.path_params["name"])
    if found is None:
        return Response("no such file\n", 404, media_type="text/plain")
    etag = f'"{found.version}"'
    current = request.query_params.get("v") == found.version
    headers = {
        "ETag": etag,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "public, max-age=31536000, immutable" if current else "no-cache",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media, headers=headers)
