"""How an OpenAI-compatible server is asked and how its stream is read: shared by every engine that speaks HTTP.

Why a parser of our own: servers differ (CRLF, comments as pings, several data lines, an `error` field instead of data,
a whole JSON answer although a stream was asked for), an event must be bounded, and bytes must arrive whole: a chunk of
the transport may end in the middle of a character. It does not interpret the frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from freehold.errors import FreeholdError
from freehold.net.async_http import AsyncHttp, AsyncResponse
from freehold.net.egress import retry_after

#: A frame larger than this is no frame of a chat.
MAX_EVENT = 8 << 20
#: An answer that is not a stream, or an error, is read up to this size.
MAX_BODY = 32 << 20


class Refusal(Exception):  # noqa: N818 - it never leaves this room: engines turn it into one of their codes
    """A server said no: HTTP `status` (200 if it did so inside a stream), its own words, and what else it told."""

    def __init__(self, status: int, message: str, details: Mapping[str, Any], retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.retry_after = retry_after


async def events(pieces: AsyncIterator[bytes]) -> AsyncGenerator[tuple[str, str], None]:
    """The events of a server-sent stream as (field, data): field is `data`, or `error` where a server uses that.

    FreeholdError engines-malformed if an event grows beyond all measure. An event that the end cuts off is not given.
    """
    buffer = bytearray()
    data: list[str] = []
    field = "data"
    size = 0
    async for piece in pieces:
        end = piece.rfind(b"\n")
        if len(buffer) + size + len(piece) > MAX_EVENT:
            raise FreeholdError("engines-malformed", "the engine sent an event of more than 8 MB")
        if end < 0:
            buffer += piece
            continue
        lines = (bytes(buffer) + piece[:end]).split(b"\n")
        buffer = bytearray(piece[end + 1 :])
        size += sum(map(len, lines))
        for raw in lines:
            line = raw.rstrip(b"\r")
            if not line:
                if data:
                    yield field, "\n".join(data)
                data, field, size = [], "data", 0
                continue
            name, _, value = line.partition(b":")
            if name in (b"data", b"error"):
                field = name.decode()
                data.append(value.removeprefix(b" ").decode("utf-8", "replace"))


async def ask(
    http: AsyncHttp, url: str, headers: Mapping[str, str], body: Mapping[str, Any], *, read_timeout: float | None
) -> AsyncGenerator[dict[str, Any] | None, None]:
    """Post `body`; yield each frame as it comes, then None for [DONE] or, as some leave it out, the orderly end.

    A server that answers in one piece gives that one object (it has no `delta`), then None. Raises Refusal, and
    FreeholdError of the room net or engines-malformed.
    """
    sent = {"Content-Type": "application/json", "Accept": "text/event-stream", **headers}
    async with http.request("POST", url, headers=sent, body=json.dumps(body).encode(), read_timeout=read_timeout) as response:
        if response.status != 200:
            raise await _refusal(response)
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            yield _object(await response.read(MAX_BODY), response)
            yield None
            return
        async with contextlib.aclosing(response.iter()) as pieces, contextlib.aclosing(events(pieces)) as stream:
            async for field, data in stream:
                if data.strip() == "[DONE]":
                    yield None
                    # Read on to the end, so that the connection can be used again; not every server ends.
                    with contextlib.suppress(TimeoutError, FreeholdError):
                        async with asyncio.timeout(1.0):
                            async for _ in pieces:
                                pass
                    return
                frame = _parse(data)
                if field == "error" or "error" in frame:
                    raise _said(200, frame)
                yield frame
            yield None


async def _refusal(response: AsyncResponse) -> Refusal:
    try:
        body = json.loads(await response.read(1 << 20))
    except (ValueError, FreeholdError):
        body = {}
    refusal = _said(response.status, body if isinstance(body, dict) else {})
    refusal.retry_after = retry_after(response.headers.get("Retry-After"))
    return refusal


def _said(status: int, body: Mapping[str, Any]) -> Refusal:
    """The several shapes of an error object: {"error": {...}}, {"error": "text"}, {"detail": ...}, the object itself."""
    error = body.get("error", body.get("detail", body))
    details = error if isinstance(error, dict) else {}
    message = details.get("message") if details else error
    inner = details.get("code")
    code = inner if status == 200 and isinstance(inner, int) and 400 <= inner < 600 else status
    return Refusal(code, str(message or f"HTTP {status}")[:2000], details)


def _parse(text: str) -> dict[str, Any]:
    try:
        frame = json.loads(text)
    except ValueError as error:
        raise FreeholdError("engines-malformed", "the engine sent a frame that is not JSON", frame=text[:200]) from error
    if not isinstance(frame, dict):
        raise FreeholdError("engines-malformed", "the engine sent a frame that is not an object", frame=text[:200])
    return frame


def _object(body: bytes, response: AsyncResponse) -> dict[str, Any]:
    try:
        return _parse(body.decode("utf-8"))
    except (UnicodeDecodeError, FreeholdError) as error:
        kind = response.headers.get("Content-Type", "of no type")
        raise FreeholdError("engines-malformed", f"the engine answered with neither a stream nor JSON ({kind})") from error


async def get_json(http: AsyncHttp, url: str, headers: Mapping[str, str], *, read_timeout: float = 10.0) -> Any:
    """GET; Refusal, FreeholdError of the room net or engines-malformed."""
    async with http.request("GET", url, headers=headers, read_timeout=read_timeout) as response:
        if response.status != 200:
            raise await _refusal(response)
        return json.loads(await response.read(MAX_BODY))


async def post_json(
    http: AsyncHttp, url: str, headers: Mapping[str, str], body: Mapping[str, Any], *, read_timeout: float = 30.0
) -> Any:
    """POST for one JSON object; errors as `get_json`."""
    sent = {"Content-Type": "application/json", **headers}
    async with http.request("POST", url, headers=sent, body=json.dumps(body).encode(), read_timeout=read_timeout) as response:
        if response.status != 200:
            raise await _refusal(response)
        return _object(await response.read(MAX_BODY), response)
