"""Running the server: its socket, its lock, its signals, its end.

Signals are our own: SIGTERM and SIGINT stop taking connections, let running answers finish for a bounded time, then
interrupt them; a second one ends the wait. Engines stop with the server. uvicorn is driven, not in charge.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from freehold.app import House
from freehold.errors import FreeholdError
from freehold.flows import serving
from freehold.web.front import is_loopback_host
from freehold.web.logs import ServerLog
from freehold.web.send import SendfileProtocol
from freehold.web.server import build

#: Seconds for which running answers may go on after the signal.
GRACE_SECONDS = 10
#: Longer than the 60 s for which proxies keep an idle connection, so that it is never us who close it under a request.
KEEP_ALIVE_SECONDS = 75
_MAX_HEADER_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that answers: `url` is where it listens, `public_url` what others call it; `admin_key` at the first start only."""

    url: str
    public_url: str
    admin_key: str | None


def serve(house: House, on_ready: Callable[[Ready], None]) -> None:
    """Serve `house` until a signal. Calls `on_ready` once the server answers, then writes its URL to run/server.json.

    Raises server-already-running, server-open-without-keys, server-port-taken, server-bind-failed."""
    settings, parts = house.settings.server, house.parts
    with serving.lock(parts, house.caller) as lock:
        if not is_loopback_host(settings.host):
            serving.require_keys(parts, settings.host)
        listening = _listen(settings.host, settings.port)
        made = serving.first_key(parts, house.caller)
        url = _url(settings.host, listening)

        def ready() -> None:
            on_ready(Ready(url, parts.base_url or url, made.token if made else None))
            serving.note(parts, house.caller, "server.started", url)
            lock.announce(url)
            threading.Thread(target=_tidy, args=(house,), name="tidy", daemon=True).start()

        with listening:
            asyncio.run(_Server(_config(house), ready).serve(sockets=[listening]))
        serving.note(parts, house.caller, "server.stopped", url)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            await asyncio.get_running_loop().run_in_executor(None, self._ready)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def _config(house: House) -> uvicorn.Config:
    logger = logging.getLogger("uvicorn.error")
    if not logger.handlers:
        logger.addHandler(logging.FileHandler(house.parts.home.logs / "server.log", delay=True))
        logger.propagate = False
    return uvicorn.Config(
        build(house),
        http=SendfileProtocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        backlog=512,
    )


def _tidy(house: House) -> None:
    """After the start, beside the first requests; a failure is told in the log, since nobody waits for it."""
    log = ServerLog(house.parts.home.logs)
    try:
        log.note(serving.tidy(house.parts))
    except Exception as error:  # noqa: BLE001 - the server serves all the same
        log.bug("tidy", error)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise FreeholdError("server-port-taken", f"port {port} of {host} is taken", host=host, port=port) from error
        message = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise FreeholdError("server-bind-failed", message, host=host, port=port) from error


def _url(host: str, listening: socket.socket) -> str:
    """Where this machine reaches the server: a wildcard address is reached through loopback."""
    port = listening.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"
