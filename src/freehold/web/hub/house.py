"""What every route of the hub works with: the parts, the caller behind a request, one bounded place for blocking work.

An unknown repository is fetched from the upstreams here: once, however many ask for it, on a thread of its own that neither a
client's leaving nor the executor's bound stops. A server that ends meanwhile leaves a resumable spool.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from freehold.errors import FreeholdError
from freehold.flows.keys import identify
from freehold.flows.parts import Parts
from freehold.flows.shelf import Shelf
from freehold.nouns.caller import Caller
from freehold.nouns.ids import RepoId, RepoKind
from freehold.web.asgi import Scope, bearer

P = ParamSpec("P")
T = TypeVar("T")

_ABSENT = ("catalog-repo-not-found", "catalog-revision-not-found")
_TRANSFERS = 4


class HubHouse:
    """The hub's view of the house."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.shelf = Shelf(parts)
        self._fetching: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._transfers = threading.BoundedSemaphore(_TRANSFERS)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work` in the loop's executor."""
        return await asyncio.get_running_loop().run_in_executor(None, lambda: work(*args, **kwargs))

    async def caller(self, scope: Scope) -> Caller:
        """Who sent the request; only a key needs a look at the catalog."""
        token = bearer(scope)
        found = identify(self.parts, None, "hub") if token is None else await self.run(identify, self.parts, token, "hub")
        scope["freehold.principal"] = found.principal
        return found

    async def ask(self, scope: Scope, flow: Callable[Concatenate[Parts, Caller, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a flow as whoever sent the request, in the executor."""

        def call() -> T:
            caller = identify(self.parts, bearer(scope), "hub")
            scope["freehold.principal"] = caller.principal
            return flow(self.parts, caller, *args, **kwargs)

        return await self.run(call)

    async def ask_repo(
        self,
        scope: Scope,
        repo: RepoId,
        revision: str | None,
        flow: Callable[Concatenate[Parts, Caller, RepoId, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The same for a flow about one repository; if it is not kept, it is fetched from the upstreams and asked again."""
        try:
            return await self.ask(scope, flow, repo, *args, **kwargs)
        except FreeholdError as error:
            upstreams = self.parts.upstreams
            if error.code not in _ABSENT or repo.kind is not RepoKind.MODEL or upstreams.offline or not upstreams.endpoints:
                raise
        await self._fetch(scope, repo, revision or "main")
        return await self.ask(scope, flow, repo, *args, **kwargs)

    async def _fetch(self, scope: Scope, repo: RepoId, revision: str) -> None:
        caller = await self.run(identify, self.parts, bearer(scope), "hub")
        key = (repo.key, revision)
        running = self._fetching.get(key)
        if running is None:
            running = asyncio.get_running_loop().create_future()
            self._fetching[key] = running
            running.add_done_callback(lambda done: (self._fetching.pop(key), done.exception()))
            threading.Thread(target=self._transfer, args=(running, caller, repo, revision), name="mirror", daemon=True).start()
        await asyncio.shield(running)

    def _transfer(self, running: asyncio.Future[None], caller: Caller, repo: RepoId, revision: str) -> None:
        from freehold.flows.mirror import ensure

        error: BaseException | None = None
        with self._transfers:
            try:
                ensure(self.parts, caller, repo, revision)
            except Exception as caught:  # noqa: BLE001 - it is raised again by whoever waits
                error = caught
        loop = running.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, running, error)


def _settle(running: asyncio.Future[None], error: BaseException | None) -> None:
    if running.done():
        return
    if error is None:
        running.set_result(None)
    else:
        running.set_exception(error)
