"""The stage of the demo and the drill: a server of this home, stock clients in venvs of their own, a lab upstream.

Everything on it is what a user has: the server is `freehold up` in a process of its own, the clients come unchanged from
the package index and know nothing but a URL (and a key). A client's cache is a new, empty folder at each call, so that
what it gets comes over the wire.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from freehold.db.home import running_server
from freehold.errors import FreeholdError
from freehold.flows.parts import Parts
from freehold.nouns.progress import Listener, silent
from freehold.procs.child import Child, minimal_environment, run
from freehold.procs.venvs import client_venv

#: The stock clients and the versions that the demo and the drill use.
OPENAI_CLIENT = ("openai==3.54.0",)
HUB_CLIENT = ("huggingface_hub==2.4.0",)

_START_SECONDS = 60.0
_CLIENT_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class ClientRun:
    """How a client script ended: its one line of JSON if it succeeded, else the last line that it wrote."""

    ok: bool
    result: dict[str, Any]
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server of this home. `admin_key` is the key that it printed, if this was the home's first start."""

    url: str
    admin_key: str | None
    pid: int


def prepare_clients(parts: Parts, listener: Listener = silent) -> None:
    """Make the clients' venvs beforehand, so that their installation is not counted as part of a run."""
    for requirements in (OPENAI_CLIENT, HUB_CLIENT):
        client_venv(parts.home.clients, requirements, listener)


def call_client(
    parts: Parts, requirements: tuple[str, ...], script: str, args: tuple[str, ...], env: Mapping[str, str]
) -> ClientRun:
    """Run one of the packaged client scripts; a failure of the client is a result, not an exception."""
    python = client_venv(parts.home.clients, requirements)
    lines: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="client-", dir=parts.home.run) as folder:
        source = resources.files("freehold") / "data" / "clients" / script
        here = Path(folder) / script
        here.write_text(source.read_text("utf-8"), "utf-8")
        cache = {"HF_HOME": str(Path(folder) / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        environment = minimal_environment(**cache, NO_PROXY="127.0.0.1,localhost", **env)
        done = run([str(python), "-I", str(here), *args], env=environment, on_line=lines.append, timeout=_CLIENT_SECONDS)
    seconds = time.monotonic() - began
    if done.exit.ok and lines:
        return ClientRun(True, json.loads(lines[-1]), "", seconds)
    return ClientRun(False, {}, _complaint(done.tail) or str(done.exit), seconds)


def _complaint(output: str) -> str:
    """The client's exception and the first sentence of its message."""
    for line in reversed(output.splitlines()):
        if found := re.match(r"(?:\w+\.)*(\w*(?:Error|Exception|Interrupt))(?:: (.*))?$", line.strip()):
            return f"{found[1]}: {found[2].split('. ')[0]}" if found[2] else found[1]
    return ""


def chat_client(parts: Parts, url: str, key: str, model: str, prompt: str, max_tokens: int) -> ClientRun:
    """One streamed greedy answer by the stock openai client from the server at `url`."""
    env = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": key}
    return call_client(parts, OPENAI_CLIENT, "openai_chat.py", (model, prompt, str(max_tokens)), env)


def hub_client(parts: Parts, endpoint: str, repo: str, revision: str = "main") -> ClientRun:
    """Every file of `repo` by the stock huggingface_hub client, which knows nothing but HF_ENDPOINT."""
    return call_client(parts, HUB_CLIENT, "hub_download.py", (repo, revision), {"HF_ENDPOINT": endpoint})


@contextmanager
def serving(parts: Parts, **settings: str) -> Iterator[Serving]:
    """`freehold up` on this home, on a free port, for the length of the block. `settings` are FREEHOLD_SECTION__KEY names.

    FreeholdError server-already-running, server-not-ready."""
    env = minimal_environment(**{k: v for k, v in os.environ.items() if k.startswith("FREEHOLD_") and k != "FREEHOLD_HOME"})
    argv = [sys.executable, "-m", "freehold", "--home", str(parts.home.path), "up", "--port", "0", "--json"]
    lines: list[str] = []
    child = Child.start(argv, env=env | settings, on_line=lines.append)
    try:
        url = _wait_ready(child, parts)
        announced: dict[str, Any] = next((json.loads(line) for line in lines if line.startswith("{")), {})
        yield Serving(url, announced.get("admin_key"), child.pid)
    finally:
        child.stop(grace=10.0)


def _wait_ready(child: Child, parts: Parts) -> str:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if child.exit is not None:
            tail = child.tail(2000).strip()
            if "server-already-running" in tail:
                raise FreeholdError("server-already-running", "another server runs on this home", url=running_server(parts.home))
            raise FreeholdError(
                "server-not-ready", f"the server ended at its start ({child.exit}): {tail.splitlines()[-1:]}", log=tail
            )
        url = running_server(parts.home)
        if url:
            return url
        time.sleep(0.05)
    raise FreeholdError("server-not-ready", f"the server was not ready within {_START_SECONDS:.0f} s", log=child.tail(2000))
