"""HEAD and GET of /{id}/resolve/{revision}/{path}: one file, whole or in part.

One executor job identifies the caller, resolves the name and opens the bytes; the event loop then only sends. A file of a
model is shown to browsers as harmless text or a download, never as a page of this origin: the console lives on the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from freehold.flows import read_file
from freehold.flows.parts import Parts
from freehold.flows.read_file import OpenFile, OpenRange
from freehold.nouns.caller import Caller
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


@dataclass(frozen=True, slots=True)
class _Sendable:
    """What goes out: either `small`, the whole body, or `pieces`."""

    opened: OpenFile
    part: ByteRange | None
    small: bytes | None
    pieces: list[OpenRange | Iterator[bytes]]
    fresh: bool


async def resolve(house: HubHouse, url: HubUrl, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request. Raises FreeholdError before anything was sent."""
    repo, revision = url.repo_id, url.revision or read_file.MAIN
    found = await house.ask_repo(scope, repo, revision, _prepare, scope, revision, url.path)
    opened = found.opened
    try:
        if not same_repo(repo, opened.id):
            await _moved(scope, url, opened)(scope, receive, send)
            return
        headers = _headers(opened)
        if found.fresh:
            await Answer(304, b"", headers)(scope, receive, send)
            return
        length = opened.entry.size if found.part is None else found.part.stop - found.part.start
        if found.part is not None:
            headers.append((b"content-range", found.part.content_range.encode()))
        headers.append((b"content-length", str(length).encode()))
        status = 200 if found.part is None else 206
        if found.small is not None or scope["method"] == "HEAD":
            await Answer(status, found.small or b"", headers)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send_pieces(scope, receive, send, [_piece(p) for p in found.pieces])
    finally:
        read_file.close_bytes(found.pieces)


def _prepare(parts: Parts, caller: Caller, repo: RepoId, scope: Scope, revision: str, path: str) -> _Sendable:
    """Everything that blocks, in one job."""
    opened = read_file.open_file(parts, caller, repo, revision, path)
    none: list[OpenRange | Iterator[bytes]] = []
    if not same_repo(repo, opened.id):
        return _Sendable(opened, None, None, none, fresh=False)
    etag, size = opened.entry.etag, opened.entry.size
    if etag_matches(header(scope, b"if-none-match"), etag):
        return _Sendable(opened, None, None, none, fresh=True)
    if scope["method"] == "HEAD":
        return _Sendable(opened, None, None, none, fresh=False)
    asked = header(scope, b"range") if range_applies(header(scope, b"if-range"), etag) else None
    part = parse_range(asked, size)
    start, stop = (part.start, part.stop) if part else (0, size)
    if stop - start <= _SMALL:
        return _Sendable(opened, part, read_file.read_bytes(parts, opened, start, stop - start), none, fresh=False)
    return _Sendable(opened, part, None, read_file.open_bytes(parts, opened, start, stop - start), fresh=False)


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
