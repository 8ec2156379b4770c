"""A home with keys and the echo engine behind the product's own server, at the pace a test asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from freehold.app import House, house
from freehold.engines.echo import EchoEngine
from freehold.engines.pool import EnginePool
from freehold.flows import keys
from freehold.flows.chat import close_engines
from freehold.nouns.caller import Scope
from freehold.nouns.ids import uuid7
from freehold.nouns.serving import Deployment
from freehold.nouns.usage import UsageRecord
from freehold.testing.server import running_server
from freehold.use import ledger
from freehold.use.audit import check
from freehold.web.asgi import App, Receive, Send
from freehold.web.asgi import Scope as AsgiScope
from freehold.web.send import SendfileProtocol
from freehold.web.server import build


@dataclass(frozen=True)
class Gateway:
    """A served home. `key` may chat, `reader` may only read. Records before the reservation `since` are left out."""

    house: House
    url: str
    key: str
    reader: str
    engines: list[EchoEngine]
    since: str = ""

    def headers(self, key: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {key or self.key}"}

    def records(self, count: int | None = None) -> list[UsageRecord]:
        """All usage records, newest first, once there are `count`; the ledger must be sound."""
        until = time.monotonic() + 5
        while True:
            with self.house.parts.ledger.read() as tx:
                found = [r for r in ledger.list_usage(tx, limit=10_000) if r.reservation > self.since]
                audit = check(tx)
            if count is None or len(found) >= count or time.monotonic() > until:
                assert audit.ok, audit.broken
                assert count is None or len(found) == count
                return found
            time.sleep(0.01)

    def busy(self) -> int:
        """Answers being generated now, by the engines' own count."""
        return sum(asyncio.run(engine.facts()).busy for engine in self.engines)


def _closing(app: App, opened: House) -> App:
    """The server's application, which closes its engines in its own loop when it ends."""

    async def closing(scope: AsgiScope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        if scope["type"] == "lifespan":
            await close_engines(opened.parts)

    return closing


@contextmanager
def _serving(home: Path, settings: dict[str, str], deployed: dict[str, Any]) -> Iterator[Gateway]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FREEHOLD_USE__ECHO": "true", **settings}.items():
            patch.setenv(name, value)
        with house(str(home)) as plain:
            engines: list[EchoEngine] = []

            def start(deployment: Deployment) -> EchoEngine:
                engines.append(EchoEngine(replace(deployment, **deployed)))
                return engines[-1]

            opened = replace(plain, parts=replace(plain.parts, pool=EnginePool(make=start)))
            made = [
                keys.create_key(opened.parts, opened.caller, scope, frozenset({scope})).token
                for scope in (Scope.CHAT, Scope.READ)
            ]
            with running_server(_closing(build(opened), opened), http=SendfileProtocol) as url:
                yield Gateway(opened, url, *made, engines)


@pytest.fixture
def open_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Make a served home: `settings` are FREEHOLD_SECTION__KEY names; the rest changes every deployment (pace, slots ...)."""
    with ExitStack() as stack:

        def make(settings: dict[str, str] | None = None, *, home: Path | None = None, **deployed: Any) -> Gateway:
            return stack.enter_context(_serving(home or tmp_path / "home", settings or {}, deployed))

        yield make


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with _serving(tmp_path_factory.mktemp("gateway") / "home", {}, {}) as gateway:
        yield gateway


@pytest.fixture
def gateway(_shared: Gateway) -> Gateway:
    """At full speed; one for all tests, each of which sees its own records only."""
    mark = uuid7(_shared.house.parts.clock() + 1000)
    time.sleep(0.003)  # ids are ordered by the millisecond
    return replace(_shared, since=mark)


Ask = Callable[..., tuple[int, Any, Any]]


@pytest.fixture
def ask() -> Ask:
    """One request: (status, JSON, headers)."""

    def send(gateway: Gateway, path: str, body: Any = None, *, method: str | None = None, **options: Any) -> Any:
        async def go() -> tuple[int, Any, Any]:
            options.setdefault("headers", gateway.headers())
            verb = method or ("GET" if body is None and "data" not in options else "POST")
            async with aiohttp.ClientSession() as session, session.request(verb, gateway.url + path, json=body, **options) as got:
                return got.status, await got.json(), got.headers

        return asyncio.run(go())

    return send
