"""Running engines by deployment: started on the first ask, shared, stopped when idle, never more than so many.

Why: a model takes memory that others need, and its start takes seconds that 64 concurrent first asks must not pay 64 times.
A start that fails fails for all who wait for it, and the next ask tries again. Where the pool is full, the engine that
nobody uses for longest makes room; where all are in use, the ask waits a while. An engine that crashed starts itself again
(`llamacpp.py`).

One event loop: the first ask binds the pool to its loop, and `close` belongs there too.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from freehold.engines.engine import Engine
from freehold.errors import FreeholdError
from freehold.net.guard import Guard
from freehold.nouns.serving import Deployment, EngineFacts, EngineKind


@dataclass(slots=True, eq=False)
class _Entry:
    engine: Engine
    starting: asyncio.Task[None]
    leases: int = 0
    idle_since: float = 0.0
    stopping: bool = False


class EnginePool:
    """`max_engines` counts those that hold a model (llamacpp); `idle_seconds` without a lease stop one; an ask waits up to
    `wait_seconds` for room. `guard` holds for remote engines. `make` is for engines of other kinds and for tests."""

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        log_folder: Path | None = None,
        max_engines: int = 2,
        idle_seconds: float = 1800.0,
        wait_seconds: float = 30.0,
        make: Callable[[Deployment], Engine] | None = None,
    ) -> None:
        self._guard = guard or Guard()
        self._log_folder = log_folder
        self._most = max_engines
        self._idle = idle_seconds
        self._wait = wait_seconds
        self._make = make or self._build
        self._entries: dict[Deployment, _Entry] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def lease(self, deployment: Deployment) -> AsyncIterator[Engine]:
        """The running engine of `deployment`, which is not stopped for idleness within the context.

        FreeholdError of the engine's start, engines-pool-full, engines-unavailable once the pool is closed.
        """
        entry = await self._enter(deployment)
        try:
            await self._ready(entry, deployment)
            yield entry.engine
        finally:
            entry.leases -= 1
            entry.idle_since = asyncio.get_running_loop().time()
            self._notify()

    async def facts(self) -> list[EngineFacts]:
        """Of the engines that run, by model name."""
        running = [e for e in self._entries.values() if e.starting.done() and not e.stopping]
        return sorted([await entry.engine.facts() for entry in running], key=lambda facts: facts.model)

    async def close(self) -> None:
        """Stop everything; running streams end with engines-unavailable. May be called twice, or without any use."""
        self._closed = True
        self._notify()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for deployment, entry in list(self._entries.items()):
            if not entry.stopping:
                self._leave(deployment, entry)
        await asyncio.gather(*self._retiring)

    async def _enter(self, deployment: Deployment) -> _Entry:
        """The entry of `deployment` with a lease taken, made if there is none yet."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._sweeper = loop.create_task(self._sweep(), name="freehold-engine-pool")
        elif self._loop is not loop:
            raise RuntimeError("a pool of engines belongs to one event loop")
        until = loop.time() + self._wait
        while True:
            if self._closed:
                raise FreeholdError("engines-unavailable", "the engines are being stopped", model=deployment.model)
            entry = self._entries.get(deployment)
            if entry is None and self._room_for(deployment):
                entry = self._open(deployment)
            if entry is not None and not entry.stopping:
                entry.leases += 1
                return entry
            await self._change(deployment, until - loop.time())

    async def _ready(self, entry: _Entry, deployment: Deployment) -> None:
        """Wait for the start; one that the pool called off is no cancellation of who waits for it."""
        try:
            await asyncio.shield(entry.starting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not entry.starting.cancelled() or (task is not None and task.cancelling()):
                raise
            raise FreeholdError("engines-unavailable", "the engines are being stopped", model=deployment.model) from None

    async def _change(self, deployment: Deployment, seconds: float) -> None:
        """Wait until something ended; FreeholdError engines-pool-full if nothing does."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter, max(0.0, seconds))
        except TimeoutError:
            message = f"{deployment.model} cannot be started: {self._most} engines run and all are in use"
            raise FreeholdError("engines-pool-full", message, model=deployment.model, retry_after=10) from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _room_for(self, deployment: Deployment) -> bool:
        """Whether one more may run now; if not, the one idle for longest is told to go, if there is one."""
        if deployment.engine is not EngineKind.LLAMACPP:
            return True
        heavy = [(d, e) for d, e in self._entries.items() if d.engine is EngineKind.LLAMACPP]
        if len(heavy) < self._most:
            return True
        idle = [(d, e) for d, e in heavy if e.leases == 0 and not e.stopping and e.starting.done()]
        if idle and not any(e.stopping for _, e in heavy):
            self._leave(*min(idle, key=lambda pair: pair[1].idle_since))
        return False

    def _open(self, deployment: Deployment) -> _Entry:
        engine = self._make(deployment)
        loop = asyncio.get_running_loop()
        entry = _Entry(engine, loop.create_task(engine.start(), name=f"start {deployment.model}"), idle_since=loop.time())
        self._entries[deployment] = entry
        entry.starting.add_done_callback(lambda task: self._started(deployment, entry, task))
        return entry

    def _started(self, deployment: Deployment, entry: _Entry, task: asyncio.Task[None]) -> None:
        if (task.cancelled() or task.exception() is not None) and not entry.stopping:
            self._leave(deployment, entry)

    def _leave(self, deployment: Deployment, entry: _Entry) -> None:
        """Begin to stop an engine; its place is free when it has ended."""
        entry.stopping = True
        task = asyncio.get_running_loop().create_task(self._retire(deployment, entry), name=f"stop {deployment.model}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, deployment: Deployment, entry: _Entry) -> None:
        try:
            if not entry.starting.done():
                entry.starting.cancel()
                await asyncio.gather(entry.starting, return_exceptions=True)
            await entry.engine.close()
        finally:
            self._entries.pop(deployment, None)
            self._notify()

    async def _sweep(self) -> None:
        """Stop what has been idle for too long."""
        while True:
            await asyncio.sleep(min(30.0, max(0.02, self._idle / 4)))
            now = asyncio.get_running_loop().time()
            for deployment, entry in list(self._entries.items()):
                if entry.leases == 0 and entry.starting.done() and not entry.stopping and now - entry.idle_since >= self._idle:
                    self._leave(deployment, entry)

    def _build(self, deployment: Deployment) -> Engine:
        """Imported here: a command that runs no engine does not pay for loading an HTTP client."""
        from freehold.engines.echo import EchoEngine
        from freehold.engines.llamacpp import LlamaCppEngine
        from freehold.engines.remote import RemoteEngine

        if deployment.engine is EngineKind.REMOTE:
            return RemoteEngine(deployment, guard=self._guard)
        if deployment.engine is EngineKind.ECHO:
            return EchoEngine(deployment)
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", deployment.model).strip("-.")[:80]
        return LlamaCppEngine(deployment, log=self._log_folder / f"engine-{slug}.log" if self._log_folder else None)
