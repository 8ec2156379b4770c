"""HEAD and GET of /{id}/resolve/{revision}/{path}: one file, whole or in part.

A name that was just looked up is answered from the shelf on the event loop; what blocks happens in the executor. A file of a
model is shown to browsers as harmless text or a download, never as a page of this origin: the console lives on the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import quote

from freehold.flows import read_file
from freehold.flows.read_file import OpenFile, OpenRange
from freehold.nouns.ids import RepoId
from freehold.web.asgi import Answer, Header, Receive, Scope, Send, header, redirect, safe_header
from freehold.web.hub.answers import same_repo
from freehold.web.hub.house import HubHouse
from freehold.web.hub.urls import HubUrl
from freehold.web.ranges import ByteRange, etag_matches, parse_range, range_applies
from freehold.web.send import FilePiece, Piece, send_pieces

#: Bodies up to this size are read at once in the executor and leave with their headers.
_SMALL = 128 << 10
_TEXT = {".json": "application/json", ".md": "text/plain", ".txt": "text/plain", ".jinja": "text/plain", ".yaml": "text/plain",
         ".yml": "text/plain", ".toml": "text/plain", ".py": "text/plain", ".csv": "text/plain", "": "text/plain"}  # fmt: skip


async def resolve(house: HubHouse, url: HubUrl, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request. Raises FreeholdError before anything was sent."""
    repo, revision = url.repo_id, url.revision or read_file.MAIN
    opened = await _open(house, scope, repo, revision, url.path)
    if not same_repo(repo, opened.id):
        await _moved(scope, url, opened)(scope, receive, send)
        return
    headers = _headers(opened)
    if etag_matches(header(scope, b"if-none-match"), opened.entry.etag):
        await Answer(304, b"", headers)(scope, receive, send)
        return
    part = _range(scope, opened)
    start, stop = (part.start, part.stop) if part else (0, opened.entry.size)
    headers += [(b"content-range", part.content_range.encode())] if part else []
    headers.append((b"content-length", str(stop - start).encode()))
    status = 206 if part else 200
    if scope["method"] == "HEAD" or stop == start:
        await Answer(status, b"", headers)(scope, receive, send)
    elif stop - start <= _SMALL:
        body = await house.run(read_file.read_bytes, house.parts, opened, start, stop - start)
        await Answer(status, body, headers)(scope, receive, send)
    else:
        pieces = await house.run(read_file.open_bytes, house.parts, opened, start, stop - start)
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send_pieces(scope, receive, send, [_piece(p) for p in pieces])
        finally:
            read_file.close_bytes(pieces)


async def _open(house: HubHouse, scope: Scope, repo: RepoId, revision: str, path: str) -> OpenFile:
    """The file, if the caller may have it: from the shelf without leaving the loop where that can be."""
    listing = house.shelf.listing(repo, revision)
    if listing is None and not house.shelf.is_long(repo, revision):
        version = house.shelf.version()
        listing = await house.ask_repo(scope, repo, revision, read_file.read_listing, revision)
        house.shelf.put_listing(version, repo, revision, listing)
    if listing is None:
        return await house.ask_repo(scope, repo, revision, read_file.open_file, revision, path)
    return read_file.open_listed(await house.caller(scope), repo, listing, path)


def _range(scope: Scope, opened: OpenFile) -> ByteRange | None:
    """The range asked for, if the method and If-Range let it count. FreeholdError hub-range-not-satisfiable."""
    if scope["method"] == "HEAD" or not range_applies(header(scope, b"if-range"), opened.entry.etag):
        return None
    return parse_range(header(scope, b"range"), opened.entry.size)


def _piece(piece: OpenRange | Iterator[bytes]) -> Piece:
    return FilePiece(piece.file, piece.offset, piece.length) if isinstance(piece, OpenRange) else piece


def _headers(opened: OpenFile) -> list[Header]:
    entry = opened.entry
    name = PurePosixPath(entry.path).name
    etag = f'"{entry.etag}"'.encode()
    plain = safe_header(name.replace("\\", "_").replace('"', "_")).decode()
    disposition = f"inline; filename*=UTF-8''{quote(name, safe='')}; filename=\"{plain}\";"
    kind = _TEXT.get(PurePosixPath(name).suffix.lower(), "application/octet-stream")
    return [
        (b"content-type", f"{kind}; charset=utf-8".encode() if kind.startswith("text/") else kind.encode()),
        (b"etag", etag),
        (b"x-repo-commit", opened.commit.encode()),
        (b"x-linked-etag", etag),
        (b"x-linked-size", str(entry.size).encode()),
        (b"accept-ranges", b"bytes"),
        (b"content-disposition", disposition.encode()),
        (b"cache-control", b"private, no-cache"),
        (b"vary", b"authorization"),
    ]


def _moved(scope: Scope, url: HubUrl, opened: OpenFile) -> Answer:
    """A renamed repository: to its name of today, relative, so that it holds behind any proxy."""
    kind = "datasets/" if url.kind == "dataset" else ""
    revision = quote(url.revision or read_file.MAIN, safe="")
    return redirect(f"{scope.get('root_path', '')}/{kind}{opened.id}/resolve/{revision}/{quote(url.path)}")
