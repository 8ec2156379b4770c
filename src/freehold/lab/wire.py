"""The origin on the wire: one ASGI application that records each request, answers it, and spoils the answer on command.

Large files go as on the real hub: `resolve` answers 302 with the file's facts in headers, and a signed, expiring URL has
the bytes. Ranges are single ones (a first-last pair, an open end, a suffix); several at once are answered with the whole
file, as RFC 9110 allows. Bodies are read in the event loop, since this server is for a laboratory.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from freehold.lab.address import Address, read_address
from freehold.lab.api import Query, Refused, admit, answer, parse_fields, parse_form, revision_of
from freehold.lab.faults import Fault, FaultKind, OpenRequest
from freehold.lab.site import Site

_CHUNK = 256 * 1024
_MOST_BODY = 1 << 20
_BODY_FAULTS = [kind for kind in FaultKind if kind is not FaultKind.FAIL]


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `stop` (exclusive) of a file of `size`; `partial` if they were asked for by Range."""

    start: int
    stop: int
    size: int
    partial: bool


def read_range(header: str | None, size: int) -> Span | None:
    """The span that a Range header asks of a file; None if it cannot be satisfied (416). Unknown forms give the whole."""
    whole = Span(0, size, size, partial=False)
    unit, _, spec = (header or "").partition("=")
    first, dash, last = spec.strip().partition("-")
    digits = all(part == "" or (part.isascii() and part.isdigit()) for part in (first, last))
    if unit.strip().lower() != "bytes" or not dash or not digits or not (first or last):
        return whole
    if not first:
        return Span(max(0, size - int(last)), size, size, partial=True) if int(last) and size else None
    if last and int(last) < int(first):
        return whole
    if int(first) >= size:
        return None
    return Span(int(first), min(size, int(last) + 1) if last else size, size, partial=True)


class Origin:
    """The ASGI application. `base` is the URL that links and redirects name, `cdn` that of large files' bytes."""

    def __init__(self, site: Site, base: str, cdn: str, cdn_seconds: float = 3600.0) -> None:
        self._site = site
        self._base = base
        self._cdn = cdn
        self._cdn_seconds = cdn_seconds
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HttpRequest(scope, receive)
        token = request.headers.get("authorization")
        record = OpenRequest(
            self._site.clock(),
            request.method,
            request.url.path,
            request.url.query,
            request.headers.get("range"),
            token is not None,
            request.headers.get("user-agent", ""),
        )
        self._site.record(record)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            elif request.method != "HEAD":
                record.sent += len(message.get("body", b""))
            await send(message)

        address = read_address(scope.get("raw_path", b"").decode("ascii", "replace"))
        response = await self._answer(request, address)
        await response(scope, receive, counted)

    async def _answer(self, request: HttpRequest, address: Address) -> Response:
        path = request.url.path
        failing = self._site.faults.meet([FaultKind.FAIL], address.repo, address.path, path).get(FaultKind.FAIL)
        if failing is not None:
            return _failed(failing)
        bearer = request.headers.get("authorization", "")
        url = request.scope["raw_path"].decode("ascii", "replace") + (f"?{request.url.query}" if request.url.query else "")
        form: dict[str, list[str]] = {}
        if request.method == "POST":
            form = parse_form(request.headers.get("content-type", ""), await _body(request))
        token = bearer[7:].strip() if bearer.lower().startswith("bearer ") else None
        query = Query(address, self._base, url, parse_fields(request.url.query), token, form)
        try:
            _only_reading(request, address)
            if address.action == "cdn":
                return self._bytes(request, query)
            if address.action == "resolve":
                return self._resolve(request, query)
            page = answer(self._site, query)
        except Refused as refused:
            body = {"error": refused.message}
            return JSONResponse(body, refused.status, headers=refused.headers)
        return JSONResponse(page.body, headers=dict(page.headers))

    def _resolve(self, request: HttpRequest, query: Query) -> Response:
        repository, _ = admit(self._site, query, files=True)
        commit = revision_of(repository, query)
        entry = commit.find(query.address.path)
        facts = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if entry is None:
            raise Refused(404, "EntryNotFound", "Entry not found", facts)
        facts["ETag"] = f'"{entry.etag}"'
        if not entry.lfs:
            return self._stream(request, query.address, self._site.blob(entry.sha256.hex), entry.size, facts)
        expires = str(int(time.time() + self._cdn_seconds))
        name = str(repository.id) if repository.id.namespace else f"-/{repository.id}"
        path = f"/-/cdn/{quote(name)}/{commit.sha}/{quote(entry.path)}"
        signature = self._sign(path, entry.sha256.hex, expires)
        signed = urlencode({"digest": entry.sha256.hex, "Expires": expires, "Signature": signature})
        facts |= {"X-Linked-Size": str(entry.size), "X-Linked-ETag": f'"{entry.etag}"', "Location": f"{self._cdn}{path}?{signed}"}
        return PlainTextResponse("Found. Redirecting.", 302, headers=facts)

    def _bytes(self, request: HttpRequest, query: Query) -> Response:
        """A large file's bytes for whoever has the signed URL; the gate was passed where it was signed."""
        path = request.scope["raw_path"].decode("ascii", "replace")
        digest, expires = query.one("digest"), query.one("Expires")
        if not hmac.compare_digest(self._sign(path, digest, expires).encode(), query.one("Signature").encode()):
            raise Refused(403, None, "SignatureDoesNotMatch")
        if time.time() >= int(expires):
            raise Refused(403, None, "Request has expired")
        file = self._site.blob(digest)
        facts = {"X-Repo-Commit": query.address.revision, "Accept-Ranges": "bytes", "ETag": f'"{digest}"'}
        return self._stream(request, query.address, file, file.stat().st_size, facts)

    def _stream(self, request: HttpRequest, address: Address, file: Path, size: int, facts: dict[str, str]) -> Response:
        if request.headers.get("if-none-match") == facts["ETag"]:
            return Response(status_code=304, headers=facts)
        faults: dict[FaultKind, Fault] = {}
        wanted = request.headers.get("range")
        if request.method == "GET":
            kinds = [k for k in _BODY_FAULTS if k is not FaultKind.IGNORE_RANGE or wanted is not None]
            faults = self._site.faults.meet(kinds, address.repo, address.path, request.url.path)
        if FaultKind.IGNORE_RANGE in faults or request.headers.get("if-range", facts["ETag"]) != facts["ETag"]:
            wanted = None
        span = read_range(wanted, size)
        if span is None:
            return PlainTextResponse("Range not satisfiable", 416, headers=facts | {"Content-Range": f"bytes */{size}"})
        if span.partial:
            facts["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
        name = quote(address.path.rsplit("/", 1)[-1])
        facts["Content-Disposition"] = f"inline; filename*=UTF-8''{name}; filename=\"{name}\";"
        return Body(file, span, facts, faults)

    def _sign(self, path: str, digest: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path}\n{digest}\n{expires}".encode(), "sha256").hexdigest()


class Body(Response):
    """A file's span as a response, spoilt by the faults that it met."""

    def __init__(self, file: Path, span: Span, headers: dict[str, str], faults: dict[FaultKind, Fault]) -> None:
        self._file = file
        self._span = span
        self._faults = faults
        self._length = span.stop - span.start
        if FaultKind.MISLENGTH in faults:
            self._length = max(0, self._length + faults[FaultKind.MISLENGTH].delta)
        told = {**headers, "Content-Length": str(self._length), "Content-Type": "application/octet-stream"}
        super().__init__(None, 206 if span.partial else 200, told)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.ensure_future(_gone(receive))
        try:
            sent = 0
            async with contextlib.aclosing(self._chunks(gone)) as chunks:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    sent += len(chunk)
            if sent == self._length:
                await send({"type": "http.response.body", "body": b""})
            # else: returning without the end makes the server close the connection, which is what the fault wants
        finally:
            gone.cancel()

    async def _chunks(self, gone: asyncio.Future[None]) -> AsyncGenerator[bytes, None]:
        slow, cut, stall = (self._faults.get(k) for k in (FaultKind.SLOW, FaultKind.CUT, FaultKind.STALL))
        step = max(1, min(_CHUNK, slow.bytes_per_second // 20)) if slow else _CHUNK
        at, end = self._span.start, self._span.start + min(self._length, self._span.stop - self._span.start)
        if cut is not None:
            end = min(end, self._span.start + cut.after)
        pause = self._span.start + stall.after if stall else -1
        with self._file.open("rb") as source:
            source.seek(at)
            while not gone.done():
                if at == pause and stall is not None:
                    await asyncio.wait([gone], timeout=stall.seconds)
                    pause = -1
                    continue
                chunk = source.read(min(step, end - at, pause - at if pause > at else step))
                if not chunk:
                    return
                yield self._corrupted(chunk, at)
                at += len(chunk)
                if slow is not None:
                    await asyncio.wait([gone], timeout=len(chunk) / slow.bytes_per_second)

    def _corrupted(self, chunk: bytes, at: int) -> bytes:
        fault = self._faults.get(FaultKind.CORRUPT)
        if fault is None:
            return chunk
        target = fault.offset if fault.offset is not None else (self._span.start + self._span.stop) // 2
        if not at <= target < at + len(chunk):
            return chunk
        spoilt = bytearray(chunk)
        spoilt[target - at] ^= 0xFF
        return bytes(spoilt)


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _only_reading(request: HttpRequest, address: Address) -> None:
    if request.method not in ("GET", "HEAD") and (request.method, address.action) != ("POST", "paths-info"):
        raise Refused(405, None, "This origin is for reading only", {"Allow": "GET, HEAD"})


async def _body(request: HttpRequest) -> bytes:
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) > _MOST_BODY:
            return b""
    return bytes(held)


def _failed(fault: Fault) -> Response:
    headers: dict[str, Any] = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = f"{fault.retry_after:g}"
    if fault.status == 429:
        headers["RateLimit"] = f'"api";r=0;t={int(fault.retry_after or 1)}'
    words = {429: "We had to rate limit you."}.get(fault.status, "Internal Error - We're working on it as fast as we can!")
    return JSONResponse({"error": words}, fault.status, headers=headers)
