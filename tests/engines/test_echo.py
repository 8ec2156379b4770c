"""The echo engine keeps every law of an engine, and what only it promises."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from freehold.engines.echo import EchoEngine
from freehold.engines.engine import Chunk
from freehold.errors import FreeholdError
from freehold.nouns.serving import Deployment, EngineFacts, EngineKind
from freehold.testing import engine as suite


def _echo(**options: Any) -> EchoEngine:
    return EchoEngine(Deployment("house/echo", EngineKind.ECHO, **options))


@pytest.mark.parametrize("check", [*suite.CHECKS, *suite.LAST_CHECKS], ids=lambda check: check.__name__)
def test_it_keeps_every_law_of_an_engine(check: suite.Check) -> None:
    async def story() -> None:
        async with suite.running(_echo()) as engine:
            await check(engine)

    asyncio.run(story())


class _Deaf(EchoEngine):
    """Ignores that its streams are closed: the slot stays taken."""

    async def chat(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        inner = super().chat(request)
        _kept.append(inner)
        async for chunk in inner:
            yield chunk


class _Forgetful(EchoEngine):
    """Loses a token."""

    async def chat(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        async with contextlib.aclosing(super().chat(request)) as chunks:
            async for chunk in chunks:
                yield Chunk(chunk.payload, 0, chunk.usage, chunk.so_far) if chunk.so_far.generated == 2 else chunk


class _Endless(EchoEngine):
    """Says more than it was asked for."""

    async def chat(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        more = {**request, "max_tokens": 30} if isinstance(request.get("messages"), list) else request
        more.pop("max_completion_tokens", None)
        async with contextlib.aclosing(super().chat(more)) as chunks:
            async for chunk in chunks:
                yield chunk


class _Boastful(EchoEngine):
    """Says that it is well whatever happened."""

    async def healthy(self) -> bool:
        return True


_kept: list[Any] = []


@pytest.mark.parametrize(
    ("broken", "check", "words"),
    [
        (_Deaf, suite.frees_the_slot_when_closed_early, "still busy"),
        (_Forgetful, suite.counts_every_token_once, "the chunks hold"),
        (_Endless, suite.honours_max_tokens, "were generated"),
        (_Boastful, suite.is_healthy_until_closed, "a closed engine is healthy"),
    ],
)
def test_an_engine_that_breaks_a_law_fails_its_check_as_a_control(
    broken: type[EchoEngine], check: suite.Check, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "SLOT_FREE", 0.2)

    async def story() -> None:
        async with suite.running(broken(Deployment("x", EngineKind.ECHO, tokens_per_second=5000))) as engine:
            with pytest.raises(AssertionError, match=words):
                await check(engine)
            for stream in _kept:
                await stream.aclose()

    asyncio.run(story())


def test_the_same_request_has_the_same_words_and_max_tokens_repeats_them() -> None:
    async def story() -> None:
        async with suite.running(_echo()) as engine:
            once = await suite.collect(engine.chat({"messages": [{"role": "user", "content": "a b  c"}]}))
            assert (once.text(), once.reasons(), once.usage.generated) == ("a b c", [(0, "stop")], 3)
            more = await suite.collect(engine.chat(suite.body("a b c", max_tokens=7)))
            assert (more.text(), more.reasons()) == ("a b c a b c a", [(0, "length")])
            last = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}]
            assert (await suite.collect(engine.chat({"messages": last}))).text() == "z"
            assert (
                await suite.collect(engine.chat({"messages": [{"role": "user", "content": ""}], "max_tokens": 2}))
            ).usage.generated == 2

    asyncio.run(story())


def test_a_stop_word_across_words_is_held_back_and_its_tokens_still_count() -> None:
    async def story() -> None:
        async with suite.running(_echo()) as engine:
            answer = await suite.collect(engine.chat(suite.body("one two three four", max_tokens=8, stop=["three f", "never"])))
            assert (answer.text(), answer.usage.generated) == ("one two ", 4)
            kept = await suite.collect(engine.chat(suite.body("one two three", max_tokens=3, stop=["three f"])))
            assert (kept.text(), kept.reasons()) == ("one two three", [(0, "length")])

    asyncio.run(story())


def test_it_keeps_its_pace() -> None:
    async def story() -> float:
        async with suite.running(_echo(tokens_per_second=100)) as engine:
            began = time.monotonic()
            await suite.collect(engine.chat(suite.body(max_tokens=20)))
            return time.monotonic() - began

    assert 0.2 <= asyncio.run(story()) < 2


def test_it_crashes_when_told_to_and_answers_again_afterwards() -> None:
    async def story() -> EngineFacts:
        async with suite.running(_echo(crash_after=5)) as engine:
            seen: list[Chunk] = []
            with pytest.raises(FreeholdError) as caught:
                async for chunk in engine.chat(suite.body(max_tokens=9)):
                    seen.append(chunk)  # noqa: PERF401 - a comprehension would lose what came before the crash
            assert caught.value.code == "engines-crashed"
            assert seen[-1].so_far.generated == 5
            assert not await engine.healthy()
            assert (await suite.collect(engine.chat(suite.body(max_tokens=9)))).usage.generated == 9
            return await engine.facts()

    assert asyncio.run(story()).starts == 2
