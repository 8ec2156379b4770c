"""Bytes of files to a socket: by the kernel where that can be, by plain writes where it cannot.

uvicorn offers an application no way to hand it a file, so every byte of a weight file would be read into Python, copied and
written again: ten times the processor time of sendfile. `SendfileProtocol` adds the ASGI extension
`http.response.zerocopysend` (a file, an offset, a count) to uvicorn's h11 protocol; `send_pieces` uses the extension if
the server offers it and else reads and writes, so that the same application runs under TLS, another loop or another server.

It does not open files, know ranges or write headers. uvicorn is an internal interface here: tests pin what is used of it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Self

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from freehold.web.asgi import Message, Receive, Scope, Send

EXTENSION = "http.response.zerocopysend"
#: The kernel is given a file in slices of this many bytes, so that a client that stopped reading is noticed.
SLICE = 8 << 20
#: Seconds that one slice may take: slower than 28 kB/s counts as stopped.
STALL_SECONDS = 300.0
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class FilePiece:
    """`length` bytes of an open file from `offset`. Whoever made it closes the file."""

    file: BinaryIO
    offset: int
    length: int


#: Part of a body: a range of a file, or plain bytes that come one by one (and may fail on the way).
Piece = FilePiece | Iterator[bytes]


async def send_pieces(scope: Scope, receive: Receive, send: Send, pieces: Sequence[Piece]) -> None:
    """The body of a response whose start was sent: all `pieces` in order. Blocking reads happen in the loop's executor.

    An error in the middle propagates: the connection then ends short of its Content-Length, which the client sees.
    """
    by_kernel = EXTENSION in (scope.get("extensions") or {})
    for piece in pieces if scope["method"] != "HEAD" else ():
        if isinstance(piece, FilePiece) and by_kernel:
            message = {"type": EXTENSION, "file": piece.file, "offset": piece.offset, "count": piece.length, "more_body": True}
            await send(message)
        else:
            async with _client(receive) as gone:
                await _send_plain(send, _chunks(piece) if isinstance(piece, FilePiece) else piece, gone)
            if gone.is_set():
                return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_plain(send: Send, chunks: Iterator[bytes], gone: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    while not gone.is_set():
        reading = loop.run_in_executor(None, next, chunks, b"")
        try:
            chunk = await asyncio.shield(reading)
        except asyncio.CancelledError:
            await asyncio.wait([reading])  # its file may be closed only once nobody reads from it
            raise
        if not chunk:
            return
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


def _chunks(piece: FilePiece) -> Iterator[bytes]:
    offset, stop = piece.offset, piece.offset + piece.length
    while offset < stop:
        chunk = os.pread(piece.file.fileno(), min(_CHUNK, stop - offset), offset)
        if not chunk:
            raise OSError(f"the file ends at byte {offset}, {stop} were promised")
        offset += len(chunk)
        yield chunk


@asynccontextmanager
async def _client(receive: Receive) -> AsyncIterator[asyncio.Event]:
    """An event that is set once the client has left: servers drop what is sent then, and decoding for nobody must stop."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watcher = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watcher.cancel()


class _Placeholder(bytes):
    """Stands for `length` bytes in h11's bookkeeping of the framing; holds none of them."""

    length = 0

    def __new__(cls, length: int) -> Self:
        made = super().__new__(cls)
        made.length = length
        return made

    def __len__(self) -> int:
        return self.length


class SendfileProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with `http.response.zerocopysend` on plain sockets. Use as `Config(http=SendfileProtocol)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._inner = self.app
        self.app = self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this only for sockets made with an explicit protocol number; without it a small body waits for
        # the client's delayed acknowledgement of the headers, 40 ms for each request
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn declares
        if cycle is None or cycle.response_complete:
            self._await_request()

    def _await_request(self) -> None:
        """A connection that says nothing, or not all of its request, ends like one that is kept alive too long."""
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        cycle = self.cycle
        if scope["type"] != "http" or cycle.scope is not scope or self.transport.get_extra_info("sslcontext") is not None:
            await self._inner(scope, receive, send)
            return
        scope["extensions"] = {**(scope.get("extensions") or {}), EXTENSION: {}}
        await self._inner(scope, receive, partial(self._send, cycle))

    async def _send(self, cycle: RequestResponseCycle, message: Message) -> None:
        if message["type"] != EXTENSION:
            await cycle.send(message)  # type: ignore[arg-type]
            return
        if not cycle.response_started or cycle.response_complete:
            raise RuntimeError(f"{EXTENSION} outside of a response's body")
        count = message["count"]
        if count and cycle.scope["method"] != "HEAD":
            await self._send_file(cycle, message["file"], message.get("offset", 0), count)
        if not message.get("more_body", False):
            await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_file(self, cycle: RequestResponseCycle, file: BinaryIO, offset: int, count: int) -> None:
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        for part in cycle.conn.send_with_data_passthrough(h11.Data(data=_Placeholder(count))) or []:
            if not isinstance(part, _Placeholder):
                cycle.transport.write(part)
                continue
            try:
                await self._slices(cycle, file, offset, count)
            except (ConnectionError, TimeoutError):
                cycle.transport.abort()
                cycle.disconnected = True
                cycle.message_event.set()
                return

    async def _slices(self, cycle: RequestResponseCycle, file: BinaryIO, offset: int, count: int) -> None:
        stop = offset + count
        while offset < stop:
            length = min(SLICE, stop - offset)
            if offset + length < stop:
                os.posix_fadvise(file.fileno(), offset + length, SLICE, os.POSIX_FADV_WILLNEED)
            async with asyncio.timeout(STALL_SECONDS):
                sent = await self.loop.sendfile(cycle.transport, file, offset, length)
            if sent != length:
                cycle.transport.abort()
                raise OSError(f"the file ends at byte {offset + sent}, {stop} were promised")
            offset += length
