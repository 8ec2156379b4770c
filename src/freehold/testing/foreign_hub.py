"""A hub that is not ours, in front of a lab upstream: olah, a pull-through proxy of others, in a process of its own.

Why: freehold pulls from any hub that speaks the Hub API, and only someone else's program can show that; a fake of ours
would share our misreadings. It is pinned, installed in a venv of its own, listens on loopback, and ends with the block.
Where it cannot be installed the test is skipped and says "not run:".

It is no measure of olah: its speed and its caching are its own business.
"""

from __future__ import annotations

import http.client
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from freehold.procs.child import Child, minimal_environment
from freehold.testing.clients import client_python

#: olah and those of its dependencies whose next version could break it.
OLAH = ("olah==0.5.4", "fastapi==0.165.0", "fastapi-utils==0.8.0", "starlette==1.10.0", "httpx==0.28.1", "pydantic==2.14.3")
_START_SECONDS = 40.0


@contextmanager
def running_foreign_hub(upstream_url: str, folder: Path, *, metadata_seconds: int = 0) -> Iterator[str]:
    """The URL of a hub that fetches what it is asked for from `upstream_url` and keeps it under `folder`.

    `metadata_seconds`: for how long it believes what it knows of a repository without asking. Skips the test if the hub
    cannot be installed; AssertionError with the end of its log if it does not start.
    """
    python = client_python(OLAH)
    folder.mkdir(parents=True, exist_ok=True)
    origin = urlsplit(upstream_url).netloc
    port = _free_port()
    own = f"127.0.0.1:{port}"
    argv = [str(python), "-I", "-m", "olah.server", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--hf-scheme", "http", "--hf-netloc", origin, "--hf-lfs-netloc", origin]
    argv += ["--mirror-scheme", "http", "--mirror-netloc", own, "--mirror-lfs-netloc", own]
    argv += ["--repos-path", str(folder / "repos"), "--log-path", str(folder / "logs")]
    argv += ["--metadata-cache-ttl", str(metadata_seconds)]
    environment = minimal_environment(NO_PROXY="127.0.0.1,localhost", HF_HUB_DISABLE_TELEMETRY="1")
    child = Child.start(argv, env=environment, cwd=folder, log=folder / "olah.log")
    try:
        _wait(child, port, folder / "olah.log")
        yield f"http://{own}"
    finally:
        child.stop(grace=10.0)


def _wait(child: Child, port: int, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and child.exit is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.1)
        else:
            return
        finally:
            connection.close()
    tail = log.read_text("utf-8", "replace")[-2000:] if log.is_file() else ""
    raise AssertionError(f"the foreign hub did not start ({child.exit}) on {sys.platform}:\n{tail}")


def _free_port() -> int:
    """A port that was free a moment ago: this hub must be told its own address beforehand."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
