"""An origin on a port of this machine: it speaks the hub's read API over a folder of models and misbehaves on command.

Why: what a mirror is for (a model deleted, gated, changed under its name, half sent, refused) cannot be asked of a real
hub, so freehold's own tests, drills and demonstrations do it to this one, and anyone may do so to any client. The server
runs in a thread of its own on loopback; `running_upstream` ends it with the block, and a lifetime ends it in any case.

It is for reading only: a stock client can list and download, not push. It announces no Xet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from freehold.errors import FreeholdError
from freehold.lab.control import control_app
from freehold.lab.site import Site, system_clock
from freehold.lab.wire import Origin
from freehold.nouns.moment import Clock

#: Seconds after which a forgotten upstream ends by itself.
LIFETIME = 3600.0
_QUIET = logging.getLogger("freehold.lab.wire")
_QUIET.setLevel(logging.CRITICAL + 1)


class _Protocol(H11Protocol):
    """A body that ends early is this server's trade, so its notices do not go to the server's log."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _QUIET


class _Listener:
    """One application on one socket, within a running loop."""

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)
        self._sock = sock
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._sock]))
        while not self._server.started:
            await asyncio.sleep(0.005)
            if self._task.done():
                raise FreeholdError("lab-port-taken", f"the server did not start: {self._task.exception()}")

    async def close(self) -> None:
        """Refuse new connections at once and drop those that are open."""
        for server in self._server.servers:
            server.close()
        self._sock.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        running = list(self._server.server_state.tasks)
        if running:
            _, late = await asyncio.wait(running, timeout=5)
            for task in late:
                task.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


class Upstream(Site):
    """A site with its server. `url` is the origin, `control_url` and `control_token` its control door on a port of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        control_token: str | None = None,
        clock: Clock = system_clock,
        lifetime: float | None = LIFETIME,
        cdn_host: str | None = None,
        cdn_seconds: float = 3600.0,
    ) -> None:
        """`cdn_host`: another name of this machine (localhost) under which large files' bytes are redirected to.

        FreeholdError lab-port-taken, and those of Site.
        """
        super().__init__(folder, clock)
        self._host = host
        self._sock = _bound(host, port)
        self.port: int = self._sock.getsockname()[1]
        self._control_sock = _bound(host, 0)
        self.url = f"http://{_named(host)}:{self.port}"
        self.control_url = f"http://{_named(host)}:{self._control_sock.getsockname()[1]}"
        self.control_token = control_token or secrets.token_urlsafe(24)
        self._origin = Origin(self, self.url, f"http://{cdn_host}:{self.port}" if cdn_host else self.url, cdn_seconds)
        self._listener: _Listener | None = None
        self._lifetime = lifetime
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finish: asyncio.Event | None = None
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="freehold-lab-upstream", daemon=True)

    def start(self) -> Self:
        """Listen; returns when requests are answered."""
        self._thread.start()
        self._started.result(30)
        return self

    def stop(self) -> None:
        """Drop all connections and end the thread; a second call does nothing."""
        if self._loop is not None and self._finish is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                self._loop.call_soon_threadsafe(self._finish.set)
            self._thread.join(30)
        self._sock.close()
        self._control_sock.close()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended (by its lifetime or `stop`); False if it has not after `seconds`."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether it listens: not before start, after stop or while dead."""
        return self._listener is not None

    def dead(self) -> None:
        """Go dead: connections are dropped, new ones refused, until `revive`. The port stays reserved."""
        self._in_loop(self._go_dead)

    def revive(self) -> None:
        """Listen again, on the same port."""
        self._in_loop(self._come_back)

    def restore(self, repo: str | None = None) -> None:
        super().restore(repo)
        if repo is None:
            self.revive()

    def describe(self) -> dict[str, Any]:
        return {"url": self.url, "alive": self.alive, "folder": str(self.folder)} | super().describe()

    def _in_loop(self, act: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await act()

        if self._loop is None or not self._thread.is_alive():
            raise FreeholdError("lab-upstream-stopped", "the upstream is not running")
        asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _go_dead(self) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.close()
            self._sock = _bound(self._host, self.port)

    async def _come_back(self) -> None:
        if self._listener is None:
            listener = _Listener(self._origin, self._sock)
            await listener.open()
            self._listener = listener

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - whoever started the thread gets it
            if not self._started.done():
                self._started.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._finish = asyncio.Event()
        control = _Listener(control_app(self, self.control_token), self._control_sock)
        await control.open()
        await self._come_back()
        self._started.set_result(None)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._finish.wait(), self._lifetime)
        await control.close()
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.close()


@contextlib.contextmanager
def running_upstream(folder: Path, **options: Any) -> Iterator[Upstream]:
    """An upstream over `folder` (models as org/name/files...), listening for the length of the block.

    `options` are those of `Upstream`. FreeholdError as there.
    """
    upstream = Upstream(Path(folder), **options)
    try:
        yield upstream.start()
    finally:
        upstream.stop()


def _bound(host: str, port: int) -> socket.socket:
    """A socket bound but not listening: connections are refused, and no one else gets the port."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise FreeholdError(
            "lab-port-taken", f"cannot listen on {host}:{port}: {error.strerror}", host=host, port=port
        ) from error
    return sock


def _named(host: str) -> str:
    return f"[{host}]" if ":" in host else host
