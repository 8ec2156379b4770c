"""Chat: one request from admission to its one usage record.

The order is what makes the record true: look at the request, reserve (committed before any engine hears of it), lease the
engine, stream through the meter, settle (committed before the last frame is sent). The engine's stream is
engine -> meter -> policy -> label -> transport; every generator of the chain is closed by whoever opened it, so that a
caller that leaves at any moment loses neither the record nor the engine's slot.

It does not know HTTP: payloads are OpenAI objects as dictionaries, failures are FreeholdErrors, before the first payload or
between two.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Self

from freehold.engines.engine import Asked, Chunk, Engine, check_chat, check_completion
from freehold.errors import FreeholdError
from freehold.flows.offered import find_deployment
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.ids import uuid7
from freehold.nouns.serving import Deployment
from freehold.nouns.usage import Outcome, UsageRecord
from freehold.use.charge import Price, most_tokens, reserve_amount
from freehold.use.collect import Collected
from freehold.use.ledger import Ending, Terms
from freehold.use.meter import Meter
from freehold.use.writer import open_writer


@dataclass(frozen=True, slots=True)
class _Request:
    """One looked-at request. `chats`: a chat, else a completion; `frame`: the caller wants the usage frame."""

    id: str
    body: Mapping[str, Any]
    asked: Asked
    chats: bool
    streams: bool
    frame: bool


class ChatAnswer:
    """An answer that has begun: iterate over its payloads (a whole answer has one), and `aclose` it in any case.

    `id` is the request's, as recorded. Raises FreeholdError between two payloads if the engine fails or the ledger cannot
    be written; `record` is the usage record once the answer has ended.
    """

    def __init__(self, request: _Request, story: _Story, first: dict[str, Any] | None) -> None:
        self.id = request.id
        self.streams = request.streams
        self._story = story
        self._first = first

    @property
    def record(self) -> UsageRecord | None:
        return self._story.record

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await anext(self._story.payloads)

    async def aclose(self) -> None:
        """End it, and the generation with it; recorded when this returns."""
        await self._story.payloads.aclose()


async def chat(parts: Parts, caller: Caller, body: Mapping[str, Any], *, request_id: str | None = None) -> ChatAnswer:
    """Answer a body of /v1/chat/completions. Returns when the answer has begun.

    FreeholdError use-request-invalid, use-model-not-found, use-budget-exhausted, engines-*, access-*.
    """
    return await _begin(parts, caller, body, request_id, chats=True)


async def complete(parts: Parts, caller: Caller, body: Mapping[str, Any], *, request_id: str | None = None) -> ChatAnswer:
    """Answer a body of /v1/completions; the same otherwise."""
    return await _begin(parts, caller, body, request_id, chats=False)


async def close_engines(parts: Parts) -> None:
    """Stop the engines that answers started; belongs into the event loop that asked them."""
    await parts.pool.close()


async def _begin(parts: Parts, caller: Caller, body: Mapping[str, Any], request_id: str | None, *, chats: bool) -> ChatAnswer:
    caller.require(Scope.CHAT)
    request = _look(body, request_id or uuid7(parts.clock()), chats=chats)
    deployment = await find_deployment(parts, caller, body["model"])
    story = _Story(parts, caller, deployment, request)
    try:
        first = await anext(story.payloads, None)
    except BaseException:
        await story.payloads.aclose()
        raise
    return ChatAnswer(request, story, first)


def _look(body: Mapping[str, Any], id_: str, *, chats: bool) -> _Request:
    """What the gateway itself needs of a body; the rest goes to the engine untouched."""
    if not isinstance(body, Mapping):
        raise _invalid("the body must be a JSON object", None)
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise _invalid("you must provide a model parameter", "model")
    streams = body.get("stream")
    if streams is not None and not isinstance(streams, bool):
        raise _invalid("'stream' must be true or false", "stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise _invalid("'stream_options' must be an object", "stream_options")
    if options is not None and not streams:
        raise _invalid("'stream_options' is only allowed when 'stream' is true", "stream_options")
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("frequency_penalty", -2, 2), ("presence_penalty", -2, 2)):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high):
            raise _invalid(f"'{name}' must be a number from {low} to {high}", name)
    asked = check_chat(body) if chats else check_completion(body)
    return _Request(id_, body, asked, chats, bool(streams), bool((options or {}).get("include_usage")))


class _Story:
    """One request on its way: `payloads` is the outermost generator of its chain, `record` how it ended."""

    def __init__(self, parts: Parts, caller: Caller, deployment: Deployment, request: _Request) -> None:
        self.record: UsageRecord | None = None
        self.payloads = self._tell(parts, caller, deployment, request)

    async def _tell(
        self, parts: Parts, caller: Caller, deployment: Deployment, request: _Request
    ) -> AsyncGenerator[dict[str, Any], None]:
        writer = open_writer(parts.ledger, parts.home.run, parts.clock)
        reservation = await writer.reserve(request.id, _terms(parts, caller, deployment, request))
        meter = Meter(parts.clock, reservation.at, lambda counts, first: writer.note(reservation, counts, first))
        whole = Collected()
        try:
            async with parts.pool.lease(deployment) as engine, aclosing(_chain(engine, meter, request)) as chunks:
                async for chunk in chunks:
                    if not request.streams:
                        whole.add(chunk.payload)
                        continue
                    if request.frame:
                        chunk.payload.setdefault("usage", None)
                    if chunk.usage is None or request.frame:
                        yield chunk.payload
                    meter.handed(chunk)
        except BaseException as error:
            self.record = await writer.close(reservation, _cut_short(meter, error))
            raise
        counts = replace(meter.counts, delivered=meter.counts.generated)
        self.record = await writer.close(
            reservation, Ending(Outcome.SETTLED, meter.finish or "stop", counts, meter.first_token_us)
        )
        if not request.streams:
            yield whole.answer()


def _chain(engine: Engine, meter: Meter, request: _Request) -> AsyncGenerator[Chunk, None]:
    """The stages of a stream, engine first; what stands between meter and transport (policy, label) wraps here."""
    return meter.measure(engine.chat(request.body) if request.chats else engine.complete(request.body))


def _cut_short(meter: Meter, error: BaseException) -> Ending:
    """A request that ends before its end: released if the engine gave nothing, else interrupted."""
    if isinstance(error, FreeholdError):
        reason = error.code
    elif isinstance(error, GeneratorExit | asyncio.CancelledError):
        reason = "cancelled"
    else:
        reason = "internal-bug"
    outcome = Outcome.INTERRUPTED if meter.began else Outcome.RELEASED
    return Ending(outcome, reason, meter.counts, meter.first_token_us)


def _terms(parts: Parts, caller: Caller, deployment: Deployment, request: _Request) -> Terms:
    price = Price(parts.prices.prompt, parts.prices.generated, parts.prices.currency)
    amount = 0
    if price.prompt or price.generated:
        size = len(json.dumps(request.body))
        amount = reserve_amount(price, *most_tokens(size, deployment.context, request.asked.max_tokens, request.asked.n))
    return Terms(caller.principal, deployment.model, str(deployment.engine), price, amount)


def _invalid(message: str, param: str | None) -> FreeholdError:
    return FreeholdError("use-request-invalid", message, param=param)
