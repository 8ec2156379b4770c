"""Files to a browser that has a session but no key: a house that anonymous callers may not read.

Elsewhere the hub's own address does, and the pages link to it: it resumes, and a download manager can use it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from freehold.flows.models import ModelView
from freehold.flows.read_file import OpenFile, OpenRange, close_bytes, open_bytes, open_file
from freehold.nouns.ids import RepoId
from freehold.web.console.place import base_path, console_path, parts_of
from freehold.web.console.visitor import visitor
from freehold.web.send import FilePiece, send_pieces


def downloads(request: Request, view: ModelView) -> str:
    """The URL path below which the revision's files lie for this visitor."""
    if parts_of(request).anonymous_read:
        return f"{base_path(request)}/{view.id}/resolve/{view.revision.commit}"
    return console_path(request, f"/models/{view.id}/-/raw/{view.revision.commit}")


async def raw(request: Request) -> Response:
    """GET .../-/raw/{revision}/{path}: one whole file."""
    parts, names = parts_of(request), request.path_params
    repo = RepoId.parse("/".join(filter(None, (names.get("namespace"), names["name"]))))
    opened = await asyncio.to_thread(open_file, parts, visitor(request).caller, repo, names["revision"], names["path"])
    return _Whole(opened, await asyncio.to_thread(open_bytes, parts, opened, 0, opened.entry.size))


class _Whole(Response):
    """The bytes of a file, streamed; the files behind them are closed in the end."""

    def __init__(self, opened: OpenFile, pieces: list[OpenRange | Iterator[bytes]]) -> None:
        name = quote(opened.entry.path.rpartition("/")[2], safe="")
        super().__init__(
            headers={
                "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
                "Content-Length": str(opened.entry.size),
                "Content-Type": "application/octet-stream",
            }
        )
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces = [FilePiece(p.file, p.offset, p.length) if isinstance(p, OpenRange) else p for p in self._pieces]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send_pieces(scope, receive, send, pieces)
        finally:
            close_bytes(self._pieces)
