"""The meter: what was generated, what was delivered, when the first token came, what a crash would leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from freehold.engines.echo import EchoEngine
from freehold.engines.engine import Chunk
from freehold.nouns.serving import Deployment, EngineKind
from freehold.nouns.usage import TokenCounts
from freehold.use.meter import NOTE_EVERY_US, Meter

ASK = {"messages": [{"role": "user", "content": "one two three four"}]}


class Clock:
    """Moves by `step` at every look."""

    def __init__(self, step: int = 0) -> None:
        self.now, self.step = 1_000_000, step

    def __call__(self) -> int:
        self.now += self.step
        return self.now


def metered(clock: Clock, notes: list[TokenCounts] | None = None) -> Meter:
    return Meter(clock, clock.now, lambda counts, _first: notes.append(counts) if notes is not None else None)


def engine() -> EchoEngine:
    return EchoEngine(Deployment("echo", EngineKind.ECHO))


async def take(meter: Meter, chunks: AsyncGenerator[Chunk, None], pieces: int, hand: int) -> None:
    """Take so many chunks and hand the first of them on."""
    for number in range(pieces):
        chunk = await anext(chunks)
        if number < hand:
            meter.handed(chunk)


def test_counts_are_the_engines_and_delivery_is_what_was_handed_on() -> None:
    async def story() -> tuple[Meter, int]:
        meter, echo = metered(Clock(7)), engine()
        chunks = meter.measure(echo.chat(ASK))
        await take(meter, chunks, 4, 2)  # the role, then three words; of them the role and one word are handed on
        await chunks.aclose()
        return meter, (await echo.facts()).busy

    meter, busy = asyncio.run(story())
    assert meter.counts == TokenCounts(prompt=4, generated=3, delivered=1)
    assert meter.first_token_us == 7
    assert meter.finish is None
    assert busy == 0, "closing the metered stream closes the engine's"


def test_a_stream_to_its_end_has_all_counts_and_the_reason() -> None:
    async def story() -> Meter:
        meter = metered(Clock())
        async for chunk in meter.measure(engine().chat({**ASK, "max_tokens": 2})):
            meter.handed(chunk)
        return meter

    meter = asyncio.run(story())
    assert meter.counts == TokenCounts(prompt=4, generated=2, delivered=2)
    assert meter.finish == "length"
    assert meter.began


def test_a_stream_that_never_begins_has_no_counts() -> None:
    async def story() -> Meter:
        meter = metered(Clock())
        with pytest.raises(Exception, match="messages"):
            await anext(meter.measure(engine().chat({"messages": []})))
        return meter

    meter = asyncio.run(story())
    assert (meter.began, meter.counts, meter.first_token_us) == (False, TokenCounts(), None)


def test_long_answers_are_noted_now_and_then_and_never_ahead_of_delivery() -> None:
    async def story(step: int) -> list[TokenCounts]:
        notes: list[TokenCounts] = []
        meter = metered(Clock(step), notes)
        async for chunk in meter.measure(engine().chat({**ASK, "max_tokens": 40})):
            meter.handed(chunk)
        return notes

    notes = asyncio.run(story(NOTE_EVERY_US // 10))
    assert 3 <= len(notes) <= 5
    assert all(0 < n.delivered <= n.generated for n in notes)
    assert [n.delivered for n in notes] == sorted(n.delivered for n in notes)
    assert asyncio.run(story(1)) == [], "a short answer costs no note"
