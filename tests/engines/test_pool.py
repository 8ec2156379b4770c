"""The pool: one engine for all who ask, none for nobody."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from freehold.engines.echo import EchoEngine
from freehold.engines.engine import Engine
from freehold.engines.llamacpp import LlamaCppEngine
from freehold.engines.pool import EnginePool
from freehold.errors import FreeholdError
from freehold.nouns.serving import Deployment, EngineKind
from freehold.testing import engine as suite


class _Slow(EchoEngine):
    """An echo that takes a while to start, may fail to, and tells how often it was started and closed."""

    def __init__(self, deployment: Deployment, log: list[str], fails: int = 0) -> None:
        super().__init__(deployment)
        self.log = log
        self.fails = fails

    async def start(self) -> None:
        if not await self.healthy():
            self.log.append(f"start {self._deployment.model}")
            await asyncio.sleep(0.02)
            if self.fails > self.log.count(f"start {self._deployment.model}") - 1:
                raise FreeholdError("engines-load-failed", "no")
        await super().start()

    async def close(self) -> None:
        self.log.append(f"close {self._deployment.model}")
        await super().close()


def _model(name: str) -> Deployment:
    """A deployment that counts as holding a model, whatever engine the test makes for it."""
    return Deployment(name, EngineKind.LLAMACPP, context=512, tokens_per_second=1000)


def _pool(log: list[str], fails: int = 0, **options: Any) -> EnginePool:
    return EnginePool(make=lambda deployment: _Slow(deployment, log, fails), **options)


def _run(story: Callable[[list[str]], Any]) -> list[str]:
    log: list[str] = []
    asyncio.run(story(log))
    return log


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is a list of a test
            await asyncio.sleep(0.005)


def test_64_first_asks_at_once_are_one_start() -> None:
    async def story(log: list[str]) -> None:
        pool = _pool(log)

        async def ask() -> Engine:
            async with pool.lease(_model("a")) as engine:
                await suite.collect(engine.chat(suite.body(max_tokens=2)))
                return engine

        engines = await asyncio.gather(*(ask() for _ in range(64)))
        assert len(set(map(id, engines))) == 1
        assert [facts.model for facts in await pool.facts()] == ["a"]
        await pool.close()

    assert _run(story) == ["start a", "close a"]


def test_a_start_that_fails_fails_for_all_who_wait_and_the_next_ask_tries_again() -> None:
    async def story(log: list[str]) -> None:
        pool = _pool(log, fails=1)

        async def ask() -> str:
            async with pool.lease(_model("a")):
                return "fine"

        results = await asyncio.gather(*(ask() for _ in range(5)), return_exceptions=True)
        assert {getattr(result, "code", result) for result in results} == {"engines-load-failed"}
        assert await ask() == "fine"
        await pool.close()

    assert _run(story) == ["start a", "close a", "start a", "close a"]


def test_an_engine_nobody_uses_is_stopped_and_one_in_use_is_not() -> None:
    async def story(log: list[str]) -> None:
        pool = _pool(log, idle_seconds=0.05)
        async with pool.lease(_model("busy")) as busy:
            async with pool.lease(_model("idle")):
                pass
            await _until(lambda: "close idle" in log)
            await asyncio.sleep(0.1)
            assert await busy.healthy()
        await _until(lambda: "close busy" in log)
        assert await pool.facts() == []
        await pool.close()

    _run(story)


def test_a_full_pool_lets_the_longest_idle_go_and_waits_where_all_are_in_use() -> None:
    async def story(log: list[str]) -> None:
        pool = _pool(log, max_engines=2, wait_seconds=0.1)
        for name in ("old", "new"):
            async with pool.lease(_model(name)):
                pass
        async with pool.lease(_model("third")), pool.lease(_model("new")):
            assert log == ["start old", "start new", "close old", "start third"]
            async with pool.lease(Deployment("light", EngineKind.ECHO)):
                pass
            with pytest.raises(FreeholdError) as caught:
                async with pool.lease(_model("fourth")):
                    pass
            assert caught.value.code == "engines-pool-full"
        async with pool.lease(_model("fourth")):
            assert "close third" in log or "close new" in log
        await pool.close()

    _run(story)


def test_who_waits_for_room_gets_it_when_someone_leaves() -> None:
    async def story(log: list[str]) -> None:
        pool = _pool(log, max_engines=1)
        async with pool.lease(_model("a")):
            waiting = asyncio.create_task(_ask(pool, "b"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        assert await asyncio.wait_for(waiting, 5) == "b"
        await pool.close()

    assert _run(story) == ["start a", "close a", "start b", "close b"]


async def _ask(pool: EnginePool, name: str) -> str:
    async with pool.lease(_model(name)) as engine:
        return (await engine.facts()).model


def test_who_leaves_while_it_starts_does_not_spoil_the_start_for_others() -> None:
    async def story(log: list[str]) -> None:
        pool = _pool(log, idle_seconds=0.05)
        first, second = (asyncio.create_task(_ask(pool, "a")) for _ in range(2))
        await asyncio.sleep(0.005)
        first.cancel()
        assert await second == "a"
        assert first.cancelled()
        alone = asyncio.create_task(_ask(pool, "b"))
        await asyncio.sleep(0.005)
        alone.cancel()
        await _until(lambda: "close b" in log)
        await pool.close()

    assert "start b" in _run(story)


def test_closing_ends_running_streams_waiting_asks_and_starts_and_lets_nobody_in() -> None:
    async def story(log: list[str]) -> None:
        pool = _pool(log, max_engines=1)

        async def read() -> None:
            async with pool.lease(_model("a")) as engine:
                await suite.collect(engine.chat(suite.body(max_tokens=400)))

        reading = asyncio.create_task(read())
        await _until(lambda: bool(log))
        await asyncio.sleep(0.03)
        waiting = asyncio.create_task(_ask(pool, "b"))
        await asyncio.sleep(0.01)
        await pool.close()
        await pool.close()
        results = await asyncio.gather(reading, waiting, return_exceptions=True)
        assert [getattr(result, "code", result) for result in results] == ["engines-unavailable"] * 2
        with pytest.raises(FreeholdError):
            await _ask(pool, "a")

    async def starting(log: list[str]) -> None:
        pool = _pool(log)
        asking = asyncio.create_task(_ask(pool, "a"))
        await asyncio.sleep(0.005)
        await pool.close()
        (result,) = await asyncio.gather(asking, return_exceptions=True)
        assert getattr(result, "code", result) == "engines-unavailable"

    _run(story)
    _run(starting)
    asyncio.run(EnginePool().close())


def test_equal_deployments_share_an_engine_and_changed_ones_do_not() -> None:
    async def story(log: list[str]) -> None:
        pool = EnginePool()
        slow, fast = (Deployment("e", EngineKind.ECHO, tokens_per_second=pace) for pace in (1e5, 2e5))
        async with (
            pool.lease(slow) as one,
            pool.lease(Deployment("e", EngineKind.ECHO, tokens_per_second=1e5)) as two,
            pool.lease(fast) as other,
        ):
            assert one is two
            assert one is not other
        await pool.close()

    _run(story)


def test_it_belongs_to_one_event_loop_and_says_so() -> None:
    pool = EnginePool()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(_echo(pool))
        with pytest.raises(RuntimeError, match="one event loop"):
            second.run(_echo(pool))
        first.run(pool.close())


async def _echo(pool: EnginePool) -> None:
    async with pool.lease(Deployment("e", EngineKind.ECHO)) as engine:
        assert await engine.healthy()


def test_it_runs_a_real_model_and_keeps_its_log_under_a_safe_name(deployment: Deployment, tmp_path: Any) -> None:
    async def story(_: list[str]) -> None:
        pool = EnginePool(log_folder=tmp_path)
        async with pool.lease(deployment) as engine:
            assert isinstance(engine, LlamaCppEngine)
            assert (await suite.collect(engine.chat(suite.body(max_tokens=3)))).usage.generated == 3
        await pool.close()

    _run(story)
    assert [path.name for path in tmp_path.iterdir()] == ["engine-lab-noise.log"]
