"""What every engine must do, as checks that any implementation can run: the laws in `freehold.engines.engine`, one by one.

Why checks and not a test class: a suite bound to a test runner could be run by that runner only, and an engine's loop and
life differ (a model that takes a second to load is started once). `CHECKS` take a started engine and leave it usable;
`LAST_CHECKS` end it. Each raises AssertionError saying what was broken. An engine needs at least two slots and a context
of 256 tokens. They do not judge what a model says, nor how fast.

    for check in (*CHECKS, *LAST_CHECKS):
        async with running(make_engine()) as engine:
            await check(engine)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from freehold.engines.engine import Chunk, Engine
from freehold.errors import FreeholdError
from freehold.nouns.usage import TokenCounts

Check = Callable[[Engine], Awaitable[None]]

#: Long enough for any engine that works, short enough for a suite.
PATIENCE = 60.0
#: Within this time a slot must be free after its stream was closed, in seconds.
SLOT_FREE = 5.0


@contextlib.asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Engine]:
    """`engine` started, and closed at the end."""
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole stream."""

    chunks: tuple[Chunk, ...]

    @property
    def usage(self) -> TokenCounts:
        _expect(self.chunks[-1].usage is not None, "the last chunk has no usage")
        return self.chunks[-1].usage or TokenCounts()

    def text(self, index: int = 0) -> str:
        return "".join(_text(choice) for chunk in self.chunks for choice in chunk.payload["choices"] if choice["index"] == index)

    def reasons(self) -> list[tuple[int, str]]:
        found = [(c["index"], c.get("finish_reason")) for chunk in self.chunks for c in chunk.payload["choices"]]
        return [(index, reason) for index, reason in found if reason is not None]


def body(text: str = "one two three four five six seven eight", **options: Any) -> dict[str, Any]:
    """A chat request with one user message; greedy, so that the same request has the same answer."""
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "seed": 7, "max_tokens": 16, **options}


async def collect(stream: AsyncGenerator[Chunk, None]) -> Answer:
    """Every chunk; TimeoutError if it takes too long."""
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(stream):
        return Answer(tuple([chunk async for chunk in stream]))


def _expect(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _text(choice: Mapping[str, Any]) -> str:
    return (choice.get("delta") or {}).get("content") or choice.get("text") or ""


def _sums(answer: Answer) -> None:
    total = 0
    for chunk in answer.chunks:
        total += chunk.tokens
        _expect(chunk.tokens >= 0, f"a chunk of {chunk.tokens} tokens")
        _expect(chunk.so_far.generated >= total, f"so_far says {chunk.so_far.generated} after {total} tokens")
    _expect(total == answer.usage.generated, f"the chunks hold {total} tokens, the usage says {answer.usage.generated}")
    _expect(answer.chunks[-1].so_far == answer.usage, "the last so_far is not the usage")
    _expect(answer.chunks[-1].tokens == 0, "the usage frame holds tokens")
    shown = answer.chunks[-1].payload["usage"]
    counts = (answer.usage.prompt, answer.usage.generated)
    _expect((shown["prompt_tokens"], shown["completion_tokens"]) == counts, "the usage frame and the usage differ")


async def _refused(stream: AsyncGenerator[Chunk, None], code: str, what: str) -> None:
    try:
        answer = await collect(stream)
    except FreeholdError as error:
        _expect(error.code == code, f"{what}: {error.code} instead of {code}")
    else:
        raise AssertionError(f"{what}: answered with {len(answer.chunks)} chunks instead of {code}")


async def streams_well_formed_chunks(engine: Engine) -> None:
    answer = await collect(engine.chat(body()))
    first = answer.chunks[0].payload
    for chunk in answer.chunks:
        payload = json.loads(json.dumps(chunk.payload))
        _expect(payload["object"] == "chat.completion.chunk", f"object is {payload['object']}")
        _expect(payload["id"] == first["id"], "the id changes within a stream")
        _expect(payload["model"] == (await engine.facts()).model, f"the model is called {payload['model']}")
        _expect(isinstance(payload["created"], int), "created is no whole number")
        _expect("timings" not in payload, "the engine's own extras are left in")
        _expect((chunk.usage is not None) == (chunk is answer.chunks[-1]), "usage belongs on the last chunk, and only there")
        _expect((payload["choices"] == []) == (chunk is answer.chunks[-1]), "only the last chunk is without choices")


async def gives_the_role_first(engine: Engine) -> None:
    answer = await collect(engine.chat(body()))
    deltas = [choice["delta"] for chunk in answer.chunks for choice in chunk.payload["choices"]]
    _expect(deltas[0].get("role") == "assistant", "the first chunk lacks the role")
    _expect(all("role" not in delta for delta in deltas[1:]), "the role is given twice")


async def ends_with_one_finish_reason(engine: Engine) -> None:
    answer = await collect(engine.chat(body()))
    _expect([index for index, _ in answer.reasons()] == [0], f"finish reasons: {answer.reasons()}")
    _expect(answer.reasons()[0][1] in ("stop", "length"), f"finish reasons: {answer.reasons()}")
    _expect(answer.chunks[-2].payload["choices"][0].get("finish_reason"), "text comes after the finish reason")


async def counts_every_token_once(engine: Engine) -> None:
    answer = await collect(engine.chat(body()))
    _expect(answer.usage.generated > 0, "nothing was generated")
    _expect(answer.usage.prompt > 0, "the prompt has no tokens")
    _sums(answer)
    _sums(await collect(engine.chat(body("Grüße 🤖🌍 日本語 ﷺ \U0001f468\u200d\U0001f469\u200d\U0001f467"))))


async def honours_max_tokens(engine: Engine) -> None:
    for limit in (1, 5):
        for name in ("max_tokens", "max_completion_tokens"):
            answer = await collect(engine.chat({**body(max_tokens=None), name: limit}))
            _expect(answer.usage.generated <= limit, f"{name} {limit}: {answer.usage.generated} tokens were generated")
            _expect(answer.reasons()[0][1] != "length" or answer.usage.generated == limit, "cut before the limit")
            _sums(answer)


async def lets_no_other_field_overrule_the_limits(engine: Engine) -> None:
    extras: dict[str, Any] = {"n_predict": 12, "max_new_tokens": 12, "num_predict": 12, "n_cmpl": 2, "ignore_eos": True}
    answer = await collect(engine.chat(body(max_tokens=3, max_completion_tokens=9, **extras)))
    _expect(answer.usage.generated <= 3, f"max_tokens 3: {answer.usage.generated} tokens were generated")


async def honours_stop(engine: Engine) -> None:
    whole = (await collect(engine.chat(body(max_tokens=24)))).text()
    _expect(len(whole) > 3, f"too short an answer to stop: {whole!r}")
    middle = len(whole) // 2
    for word in (whole[middle], whole[middle : middle + 6]):
        answer = await collect(engine.chat(body(max_tokens=24, stop=[word])))
        _expect(answer.text() == whole.partition(word)[0], f"stop {word!r}: {answer.text()!r} of {whole!r}")
        _expect(answer.reasons()[0][1] == "stop", "the reason is not stop")
        _sums(answer)
    never = await collect(engine.chat(body(max_tokens=24, stop=["\x00never\x00"])))
    _expect(never.text() == whole, "a stop word that does not come changes the answer")


async def frees_the_slot_when_closed_early(engine: Engine) -> None:
    for leave in (_close_after_three, _cancel_after_three, _close_unopened):
        counted, told = await leave(engine)
        _expect(counted == told, f"{counted} tokens came, so_far says {told}")
        deadline = asyncio.get_running_loop().time() + SLOT_FREE
        while (await engine.facts()).busy:
            _expect(
                asyncio.get_running_loop().time() < deadline,
                f"the slot is still busy {SLOT_FREE:g} s after the stream was closed",
            )
            await asyncio.sleep(0.02)
    _sums(await collect(engine.chat(body())))


async def _close_after_three(engine: Engine) -> tuple[int, int]:
    counted, told = 0, TokenCounts()
    async with contextlib.aclosing(engine.chat(body(max_tokens=200, ignore_eos=True))) as stream:
        async for chunk in stream:
            counted, told = counted + chunk.tokens, chunk.so_far
            if counted >= 3:
                break
    return counted, told.generated


async def _cancel_after_three(engine: Engine) -> tuple[int, int]:
    seen: list[Chunk] = []
    enough = asyncio.Event()

    async def read() -> None:
        async with contextlib.aclosing(engine.chat(body(max_tokens=200, ignore_eos=True))) as stream:
            async for chunk in stream:
                seen.append(chunk)
                if len(seen) >= 3:
                    enough.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(enough.wait(), PATIENCE)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return sum(chunk.tokens for chunk in seen), seen[-1].so_far.generated


async def _close_unopened(engine: Engine) -> tuple[int, int]:
    await engine.chat(body()).aclose()
    return 0, 0


async def shows_what_is_busy(engine: Engine) -> None:
    for _ in range(20):  # a fast engine may be done before it can be asked
        async with contextlib.aclosing(engine.chat(body(max_tokens=200, ignore_eos=True))) as stream:
            await anext(stream)
            if (await engine.facts()).busy:
                return
    raise AssertionError("an answer is on its way and no slot is busy")


async def answers_two_at_once(engine: Engine) -> None:
    begun = [asyncio.Event(), asyncio.Event()]

    async def read(number: int) -> Answer:
        chunks: list[Chunk] = []
        async with contextlib.aclosing(engine.chat(body(max_tokens=12, ignore_eos=True))) as stream:
            async for chunk in stream:
                chunks.append(chunk)
                if chunk.tokens and not begun[number].is_set():
                    begun[number].set()
                    await begun[1 - number].wait()
        return Answer(tuple(chunks))

    async with asyncio.timeout(PATIENCE):
        for answer in await asyncio.gather(read(0), read(1)):
            _sums(answer)


async def answers_all_when_more_ask_than_there_are_slots(engine: Engine) -> None:
    slots = (await engine.facts()).slots or 2
    answers = await asyncio.gather(*(collect(engine.chat(body(max_tokens=3))) for _ in range(slots + 3)))
    for answer in answers:
        _sums(answer)
    _expect((await engine.facts()).busy == 0, "a slot is still busy")


async def keeps_characters_whole(engine: Engine) -> None:
    answer = await collect(engine.chat(body("🤖🌍 日本語 ﷺ naïve", max_tokens=24)))
    _expect(answer.text().encode("utf-8") is not None, "the text cannot be encoded")
    for chunk in answer.chunks:
        for choice in chunk.payload["choices"]:
            _text(choice).encode("utf-8")


async def refuses_bad_requests(engine: Engine) -> None:
    requests: dict[str, dict[str, Any]] = {
        "no messages": {"messages": []},
        "messages missing": {"max_tokens": 1},
        "messages a text": {"messages": "hello"},
        "a message that is none": {"messages": ["hello"]},
        "an unknown role": {"messages": [{"role": "robot", "content": "x"}]},
        "no content": {"messages": [{"role": "user"}]},
        "content a number": {"messages": [{"role": "user", "content": 7}]},
        "max_tokens 0": body(max_tokens=0),
        "max_tokens -1": body(max_tokens=-1),
        "max_tokens a text": body(max_tokens="many"),
        "n 0": body(n=0),
        "n too many": body(n=1000),
        "stop a number": body(stop=3),
    }
    for what, request in requests.items():
        await _refused(engine.chat(request), "engines-bad-request", what)
    await _refused(engine.complete({"prompt": None}), "engines-bad-request", "no prompt")
    _expect(await engine.healthy(), "a bad request made the engine unhealthy")


async def refuses_a_prompt_beyond_the_context(engine: Engine) -> None:
    context = (await engine.facts()).context
    if context is not None:
        await _refused(engine.chat(body("word " * (context + 10))), "engines-context-exceeded", "too long a prompt")


async def gives_several_choices(engine: Engine) -> None:
    answer = await collect(engine.chat(body(n=2, max_tokens=6)))
    one = await collect(engine.chat(body(max_tokens=6)))
    _expect(sorted(index for index, _ in answer.reasons()) == [0, 1], f"finish reasons: {answer.reasons()}")
    _expect(answer.usage.prompt == one.usage.prompt, "the prompt of two choices is counted twice")
    roles = [c["index"] for chunk in answer.chunks for c in chunk.payload["choices"] if "role" in c["delta"]]
    _expect(sorted(roles) == [0, 1], f"roles were given for {roles}")
    _sums(answer)


async def completes_texts(engine: Engine) -> None:
    answer = await collect(engine.complete({"prompt": "one two three four", "max_tokens": 6, "temperature": 0}))
    _expect(all(chunk.payload["object"] == "text_completion" for chunk in answer.chunks), "not text completions")
    _expect([index for index, _ in answer.reasons()] == [0], f"finish reasons: {answer.reasons()}")
    _expect(0 < answer.usage.generated <= 6, f"{answer.usage.generated} tokens")
    _sums(answer)


async def counts_the_prompt_beforehand_as_afterwards(engine: Engine) -> None:
    request = body("How many tokens are these, Grüße 🤖?", max_tokens=1)
    before = await engine.count_prompt(request)
    after = (await collect(engine.chat(request))).usage.prompt
    _expect(before is None or before == after, f"{before} tokens beforehand, {after} afterwards")


async def is_healthy_until_closed(engine: Engine) -> None:
    _expect(await engine.healthy(), "a started engine is not healthy")
    await engine.start()
    await engine.close()
    _expect(not await engine.healthy(), "a closed engine is healthy")
    await _refused(engine.chat(body()), "engines-unavailable", "a closed engine")
    await engine.close()


async def ends_running_streams_when_closed(engine: Engine) -> None:
    # As much as it can say, so that not all of it lies in a buffer when the engine is closed.
    most = ((await engine.facts()).context or 2048) - 100
    stream = engine.chat(body(max_tokens=most, ignore_eos=True))
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(stream):
        await anext(stream)
        await engine.close()
        try:
            async for _ in stream:
                pass
        except FreeholdError as error:
            _expect(error.code == "engines-unavailable", f"{error.code} instead of engines-unavailable")
        else:
            raise AssertionError("the stream of a closed engine ended as if it were whole")


#: Each takes a started engine and leaves it usable.
CHECKS: tuple[Check, ...] = (
    streams_well_formed_chunks,
    gives_the_role_first,
    ends_with_one_finish_reason,
    counts_every_token_once,
    honours_max_tokens,
    lets_no_other_field_overrule_the_limits,
    honours_stop,
    frees_the_slot_when_closed_early,
    shows_what_is_busy,
    answers_two_at_once,
    answers_all_when_more_ask_than_there_are_slots,
    keeps_characters_whole,
    refuses_bad_requests,
    refuses_a_prompt_beyond_the_context,
    gives_several_choices,
    completes_texts,
    counts_the_prompt_beforehand_as_afterwards,
)

#: Each takes a started engine and ends it.
LAST_CHECKS: tuple[Check, ...] = (is_healthy_until_closed, ends_running_streams_when_closed)
