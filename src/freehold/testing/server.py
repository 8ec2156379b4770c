"""A real server on a free loopback port for the length of a block: tests speak HTTP to it, never to a fake transport.

It takes any ASGI application: `running_server(freehold.web.server.build(house))` is the whole product. The server runs in a
thread of this process and stops by itself; a test that needs a process of its own starts `freehold up --port 0`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

_START_SECONDS = 10.0


@contextmanager
def running_server(app: Callable[..., Any], *, http: Any = "h11", nodelay: bool = True, **config: Any) -> Iterator[str]:
    """The server's URL, without a final slash. `http` is the protocol class (freehold.web.send.SendfileProtocol for the product's
    own), `nodelay` as TCP has it, `config` further settings of uvicorn. RuntimeError if it does not start or does not stop."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(nodelay))  # accepted connections inherit it
    settings: dict[str, Any] = {
        "lifespan": "on", "ws": "none", "loop": "asyncio", "log_config": None, "access_log": False, "server_header": False,
        "proxy_headers": False,        "timeout_graceful_shutdown": 2,
    }  # fmt: skip
    server = uvicorn.Server(uvicorn.Config(app, http=http, **(settings | config)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="test server", daemon=True)
    thread.start()
    try:
        until = time.monotonic() + _START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > until:
                raise RuntimeError("the server did not start")
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=15)
        listening.close()
        if thread.is_alive():
            raise RuntimeError("the server did not stop")
